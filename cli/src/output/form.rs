//! The forms in which commands print their results. Each command takes some of them, and its help says what they are
//! there.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Text,
    Table,
    /// The table, and what else is known.
    Wide,
    Json,
    Yaml,
    Name,
}

impl Form {
    const ALL: [Self; 6] = [Self::Text, Self::Table, Self::Wide, Self::Json, Self::Yaml, Self::Name];

    /// The word for it on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Table => "table",
            Self::Wide => "wide",
            Self::Json => "json",
            Self::Yaml => "yaml",
            Self::Name => "name",
        }
    }

    pub fn is_json(self) -> bool {
        self == Self::Json
    }
}

/// The forms that a command takes, each with what its help says of it; an empty text says nothing.
pub(crate) fn of(forms: &[(Form, &'static str)]) -> impl TypedValueParser<Value = Form> + use<> {
    let value = |&(form, help): &(Form, &'static str)| match help {
        "" => PossibleValue::new(form.word()),
        help => PossibleValue::new(form.word()).help(help),
    };
    PossibleValuesParser::new(forms.iter().map(value))
        .try_map(|word| Form::ALL.into_iter().find(|form| form.word() == word).ok_or("there is no such form"))
}

/// `text` for people, `json` for programs, which is `what`.
pub(crate) fn text_or_json(what: &'static str) -> impl TypedValueParser<Value = Form> + use<> {
    of(&[(Form::Text, ""), (Form::Json, what)])
}

/// `table` for people, `json` for programs, which is `what`.
pub(crate) fn table_or_json(what: &'static str) -> impl TypedValueParser<Value = Form> + use<> {
    of(&[(Form::Table, ""), (Form::Json, what)])
}
