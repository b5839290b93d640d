//! The weighted choice of a cluster.

use super::{WeightedCluster, WeightedClusters};

impl WeightedClusters {
    /// The cluster that this value chooses; the same value always chooses the same.
    pub fn pick(&self, value: u64) -> &WeightedCluster {
        let mut point = value % self.total.max(1);
        for cluster in &self.clusters {
            let weight = u64::from(cluster.weight);
            if point < weight {
                return cluster;
            }
            point -= weight;
        }
        // The conversion refuses an empty list and a total that is not the sum of the weights.
        &self.clusters[self.clusters.len() - 1]
    }
}
