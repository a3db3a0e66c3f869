//! Kubernetes objects as a fleet repository holds them: read from manifests
//! and named, without a server. What a server does with them is for the
//! agent's runtime.

pub mod kustomization;
pub mod manifest;
pub mod object;

pub use object::{Kind, Manifest, ObjectId};
