//! What `burgee-agent` does when asked, beside running.

pub mod enroll;
