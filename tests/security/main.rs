//! Nobody can do through the extension what they could not do without it: who may call what, what a hostile owner's code runs
//! as when others call, and calls with arguments that make no sense.

#[path = "../common/mod.rs"]
mod common;

mod around;
mod calls;
mod classes;
mod hostile;
mod malformed;
mod rights;
mod scene;
mod standby;
