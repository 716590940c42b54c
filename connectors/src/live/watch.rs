//! Adds the partitions that a topic gets while the job runs.

use std::time::Duration;

use super::Live;
use crate::input::PartitionInfo;
use crate::kafka::KafkaError;

/// Looks for new partitions of the sources until the job is to end, and adds each from its beginning. `known` has
/// each source's index in the configuration, its name and its number of partitions. `partitions` returns how many a
/// source has now, and `beginning` where a partition begins. A failed look-up is tried again the next time.
pub fn watch_partitions(
    live: &Live,
    every: Duration,
    mut known: Vec<(usize, String, u32)>,
    mut partitions: impl FnMut(usize) -> Result<u32, KafkaError>,
    mut beginning: impl FnMut(usize, u32) -> Result<u64, KafkaError>,
) {
    while !live.wait_for_stop(every) {
        for (source, name, count) in &mut known {
            let found = match partitions(*source) {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(source = name, "looking for new partitions failed: {error}");
                    continue;
                }
            };
            while *count < found {
                match beginning(*source, *count) {
                    Ok(offset) => {
                        tracing::info!(source = name, partition = *count, offset, "found a new partition");
                        let info = PartitionInfo {
                            source: name.clone(),
                            source_index: *source,
                            number: *count,
                            path: None,
                        };
                        live.add_partition(info, offset);
                        *count += 1;
                    }
                    Err(error) => {
                        tracing::warn!(source = name, "looking at a new partition failed: {error}");
                        break;
                    }
                }
            }
        }
    }
}
