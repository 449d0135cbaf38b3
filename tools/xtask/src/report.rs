//! What a command found and did while getting ready, one line each.

/// Where such lines go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// `setup`: everything, on standard output.
    All,
    /// Other commands: what changed this machine, on standard error.
    Changes,
}

impl Report {
    /// Something needed is there.
    pub(crate) fn found(self, what: &str) {
        if self == Self::All {
            println!("found      {what}");
        }
    }

    /// Something is about to be changed on this machine.
    pub(crate) fn doing(self, what: &str) {
        match self {
            Self::All => println!("doing      {what}"),
            Self::Changes => eprintln!("setup: {what}"),
        }
    }

    /// Something was changed on this machine.
    pub(crate) fn did(self, what: &str) {
        match self {
            Self::All => println!("installed  {what}"),
            Self::Changes => eprintln!("setup: installed {what}"),
        }
    }

    /// Something did not work, and another way is tried.
    pub(crate) fn note(self, what: &str) {
        if self == Self::All {
            println!("note       {what}");
        }
    }
}
