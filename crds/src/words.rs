//! Makes enums whose variants are words: `ALL` has them in order, `as_str` is a word as it is written everywhere, and a value
//! prints as its word. A list by hand would go stale with the next variant.

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$of_word:meta])* $word:ident,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$of_word])* $word,)*
        }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$word,)*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => stringify!($word),)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

pub(crate) use words;
