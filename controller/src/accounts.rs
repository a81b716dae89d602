//! The accounts of this host, and which of them libvirt runs QEMU as, read from the texts of `/etc/passwd`, `/etc/group`
//! and libvirt's settings. Values in, values out.

/// The names that distributions give the user that QEMU runs as, where libvirt's settings name none.
pub(crate) const USUAL: [&str; 2] = ["libvirt-qemu", "qemu"];

/// The file in which libvirt's settings name that user.
pub(crate) const QEMU_SETTINGS: &str = "etc/libvirt/qemu.conf";

/// A user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) user: u32,
    pub(crate) group: u32,
}

/// The users that libvirt's settings name, as they are written there. A line that is commented out is not in force.
pub(crate) fn named(settings: &str) -> impl Iterator<Item = &str> {
    settings.lines().filter_map(named_user)
}

/// The name in `user = "name"`.
fn named_user(line: &str) -> Option<&str> {
    let value = line.trim().strip_prefix("user")?.trim_start().strip_prefix('=')?.trim();
    let quoted = value.strip_prefix(['"', '\''])?;
    quoted.split(['"', '\'']).next().filter(|name| !name.is_empty())
}

/// The account of this name.
pub(crate) fn account(name: &str, accounts: &str) -> Option<Account> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let (user, group) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Account { name: name.to_owned(), user, group })
    })
}

/// The account that libvirt runs QEMU as. None: it is not in these texts, but in a directory service, say.
pub(crate) fn of_qemu(settings: &str, accounts: &str) -> Option<Account> {
    // libvirt takes the last one.
    match named(settings).last() {
        // As libvirt reads it: a name first, and a number where there is no such name or a plus says so.
        Some(name) => account(name, accounts).or_else(|| {
            let user: u32 = name.trim_start_matches('+').parse().ok()?;
            accounts
                .lines()
                .filter_map(|line| account(line.split(':').next()?, accounts))
                .find(|one| one.user == user)
        }),
        None => USUAL.iter().find_map(|name| account(name, accounts)),
    }
}

/// True if libvirt gives the files of a guest to the user that it runs QEMU as, which it does unless it is told not to.
pub(crate) fn gives_files(settings: &str) -> bool {
    let value = |line: &str| {
        let rest = line.trim().strip_prefix("dynamic_ownership")?.trim_start().strip_prefix('=')?;
        rest.trim().chars().next()
    };
    settings.lines().filter_map(value).next_back() != Some('0')
}

/// The groups that an account has beside its own.
pub(crate) fn groups(name: &str, groups: &str) -> Vec<u32> {
    let has = |members: &str| members.split(',').any(|member| member == name);
    let group = |line: &str| {
        let mut fields = line.split(':');
        let number = fields.nth(2)?.parse().ok()?;
        has(fields.next()?).then_some(number)
    };
    groups.lines().filter_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNTS: &str = "root:x:0:0::/root:/bin/sh\nlibvirt-qemu:x:64055:108::/:/bin/false\n\
        kvm-user:x:1007:1008::/:/bin/sh\nbroken:x\n";

    #[test]
    fn the_account_of_qemu_is_the_usual_one_unless_libvirts_settings_name_another() {
        let of = |settings: &str| of_qemu(settings, ACCOUNTS).map(|one| (one.user, one.group));
        assert_eq!(of(""), Some((64_055, 108)));
        assert_eq!(of("#user = \"kvm-user\"\nuser_agent = \"x\"\n"), Some((64_055, 108)));
        assert_eq!(of("user = \"kvm-user\"\n"), Some((1007, 1008)));
        assert_eq!(of("user = \"+0\"\n"), Some((0, 0)));
        assert_eq!(of("  user='1007' # ours\n"), Some((1007, 1008)));
        assert_eq!(of("user = \"of-a-directory\"\n"), None, "and none is guessed in its place");
        assert_eq!(of_qemu("", "root:x:0:0::/:/bin/sh\n"), None);
    }

    #[test]
    fn files_are_handed_over_unless_libvirt_is_told_not_to() {
        assert!(
            gives_files("")
                && gives_files("#dynamic_ownership = 0\n")
                && gives_files("dynamic_ownership = 1\n")
        );
        assert!(!gives_files("dynamic_ownership = 1\n  dynamic_ownership=0 # ours\n"));
    }

    #[test]
    fn an_account_has_its_groups() {
        let all = "kvm:x:104:libvirt-qemu\ndisk:x:6:ann,libvirt-qemu\nusers:x:100:libvirt-qemu2\nodd\n";
        assert_eq!(groups("libvirt-qemu", all), [104, 6]);
    }
}
