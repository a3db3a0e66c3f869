//! Trust (design §4): which commits a device may act on.
//!
//! Everything is judged from raw commits and the files of `trust/`, by pure
//! functions: [`judge`] takes the commits that are at hand, the device's own
//! [`Root`], the [`Mark`] of the accepted revision and the time. It does not
//! fetch, does not read trees (rule 7's names and kinds are in [`names`]), and
//! runs no other program. `docs/security.md` lists every point at which this
//! is stricter than stock Git.

pub mod commit;
pub mod key;
pub mod names;
pub mod policy;
pub mod refusal;
pub mod signers;
pub mod sshsig;

mod chain;
mod check;
mod force;
#[cfg(test)]
mod tests;
mod walk;

pub use chain::{Rules, Verdict, judge, judge_anew, mark_at, policy_of, signer_at};
pub use check::check;
pub use force::{ALLOWED_SIGNERS, Folder, InvalidRoot, Mark, POLICY, REVOKED_KEYS, Root};
pub use walk::{Commits, Refused, Stop};
