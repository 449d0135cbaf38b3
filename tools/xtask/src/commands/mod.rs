//! The commands. Each returns whether all was well; an error means that it could not do its work.

pub(crate) mod accuracy;
pub(crate) mod bench;
pub(crate) mod demo;
pub(crate) mod experiment;
pub(crate) mod images;
pub(crate) mod setup;
pub(crate) mod size;
pub(crate) mod story;
pub(crate) mod test;
