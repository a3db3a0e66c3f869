//! Plans, by case.
