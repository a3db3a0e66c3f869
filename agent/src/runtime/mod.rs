//! What runs apps: one adapter for each kind of runtime, behind
//! `ports::runtime::Runtime`. None of them knows of another.

pub mod compose;
