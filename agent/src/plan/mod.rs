//! What a revision means for the device as a whole. Pure: which apps leave,
//! which are judged, which deletions are too many. How one app gets from here
//! to there is its runtime's to plan.

pub mod order;
pub mod prune;
