//! Measurements of the node and its containers, taken at the pace the control plane asks for and never
//! stored. The samplers keep only what a difference needs: the last processor counters.

mod container;
mod error;
mod node;
pub mod procfs;
mod sampler;

pub use container::{ContainerSampler, Sources, batches};
pub use error::StatsError;
pub use node::NodeSampler;
pub use sampler::Sampler;
