//! tmp
use hoody_protocol::{id::ContainerId, stats::StatsBatch};
#[derive(Debug)]
pub struct Sampler {}
impl Sampler {
    pub async fn sample(&self, _c: &[ContainerId]) -> Vec<StatsBatch> {
        vec![]
    }
}
