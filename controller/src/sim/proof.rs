//! What finds each of the bugs that can be planted. `make planted` plants them one by one, and fails for each that is not
//! found by what is said here.

use crate::planted::Bug;

/// Who notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finder {
    /// The simulator violates something within so many seeds.
    Seeds(u64),
    /// This test of the controller fails; or this one of the lease machine.
    Test(&'static str),
    LeaseTest(&'static str),
}

use Finder::{LeaseTest, Seeds, Test};

/// Far more than any of them takes.
const MOST: Finder = Seeds(300);

/// Every bug has one: whoever adds a bug says here what finds it.
pub const fn finder(bug: Bug) -> Finder {
    match bug {
        Bug::ReleaseBeforeStop
        | Bug::StartWithoutLease
        | Bug::NeverFence
        | Bug::DeadlineFromReply
        | Bug::RestartKills
        | Bug::LostReplyCounts
        | Bug::FenceOnFirstSight
        | Bug::MissingIsDead
        | Bug::RenewAfterFenced
        | Bug::HandOverEarly
        | Bug::ResumeEarly
        | Bug::UnknownIsAbsent
        | Bug::ClockStopsInSuspend
        | Bug::AlwaysPetted => MOST,
        Bug::OwnLeaseNotInTheWrite => {
            Test("act::tests::writes::a_write_fails_where_the_own_lease_is_fenced_after_it_was_read")
        }
        Bug::OthersWordNotInTheWrite => Test(
            "act::tests::writes::a_write_fails_where_another_that_said_it_had_no_copy_says_otherwise_after_it_was_read",
        ),
        Bug::OldWritePlannedBy => Test(
            "plan::tests::restored::what_was_written_does_not_count_until_the_lease_is_renewed_after_a_step_back",
        ),
        Bug::OldWriteStartedBy => {
            Test("act::tests::writes::nothing_is_let_run_by_what_was_written_before_the_store_went_back")
        }
        Bug::GivenUpUnseen => {
            Test("act::tests::writes::ownership_is_not_given_up_while_nobody_can_see_the_processes")
        }
        Bug::UnansweredWriteForgotten => Test(
            "act::tests::writes::after_a_write_that_was_not_answered_nothing_is_started_by_what_was_written_before",
        ),
        Bug::EpochRepeats => {
            LeaseTest("lease::tests::an_epoch_never_comes_again_though_the_store_shows_an_earlier_one")
        }
        Bug::NoLookAfterRelease => Test(
            "keeper::renew::tests::looking::a_lease_is_released_only_when_nobody_is_seen_after_no_start_can_find_it_valid",
        ),
        Bug::FenceUnread => Test("act::tests::writes::nobody_is_fenced_by_an_index_alone"),
        Bug::ResumeUnasked => Test("act::tests::writes::nothing_is_let_run_in_an_epoch_that_is_over"),
        Bug::BlindIsNoCopy => Test(
            "keeper::renew::tests::looking::a_process_table_that_cannot_be_read_shows_in_the_record_as_unknown",
        ),
        Bug::EndedThoughRenewed => Test("act::tests::a_copy_is_not_ended_for_a_lease_that_is_valid_again"),
        Bug::StoppedThoughTakenBack => {
            Test("act::tests::a_guest_is_not_stopped_by_an_order_that_was_taken_back")
        }
        Bug::SilentMemberIgnored => {
            Test("plan::tests::restored::a_member_without_a_lease_is_waited_for_by_whoever_comes_back")
        }
        Bug::WentBackForgotten => {
            Test("world::tests::a_keepers_word_that_the_store_went_back_counts_for_a_while")
        }
        Bug::JudgedWhileCutOff => Test(
            "world::tests::what_was_seen_before_the_own_lease_was_last_broken_is_no_news_and_is_waited_for_from_then",
        ),
        Bug::CopyElsewhereIgnored
        | Bug::AdoptedUnwritten
        | Bug::AdoptedUnasked
        | Bug::UnreadableIsDead
        | Bug::AnyFaultIsLostStorage
        | Bug::StorageNeedsNoPatience
        | Bug::DefinitionLeft
        | Bug::HandedOverBlind
        | Bug::PettedPastFence
        | Bug::ListNotShownToBeNow
        | Bug::TakenWhileFrozen => MOST,
        Bug::NewsFromOneLook | Bug::NewsAcrossAGap => {
            LeaseTest("lease::tests::a_renewal_is_news_only_when_it_was_seen_to_follow_another_without_a_gap")
        }
        Bug::CountedFromFirstSight => LeaseTest("lease::tests::any_difference_starts_the_count_again"),
        Bug::LongerDForgotten => LeaseTest(
            "lease::tests::a_lease_is_waited_for_as_long_as_its_longest_d_before_a_step_back_until_it_is_renewed",
        ),
        Bug::VanishedLeaseForgotten => LeaseTest(
            "lease::tests::a_lease_that_is_not_there_any_more_after_a_step_back_is_remembered_until_it_is_seen",
        ),
        Bug::ObeyedAfterAnnounced => {
            LeaseTest("lease::tests::a_shorter_ttl_is_obeyed_before_it_is_announced")
        }
        Bug::RebornBesideACopy => LeaseTest(
            "lease::tests::a_fenced_holder_is_not_valid_and_begins_a_new_life_only_when_its_copy_is_dead",
        ),
        Bug::RebornBlind => LeaseTest("lease::tests::a_keeper_without_memory_is_strict"),
        Bug::MemoryOutlivesTheBoot => LeaseTest("lease::tests::memory_of_another_boot_counts_for_nothing"),
        Bug::FreedWithItsCopy => LeaseTest("lease::tests::a_node_without_controller_keeps_its_copy"),
        Bug::LostIsFencedEarly => LeaseTest("lease::tests::watching"),
    }
}
