//! Rendering, by case.
