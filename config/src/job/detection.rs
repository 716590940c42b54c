//! `[detection]`: what the detector takes for a leak. Bits and weights are in thousandths.

/// `[detection]`. What isn't given is the detector's own: see the crate of the dataflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detection {
    /// Whether keys are watched.
    pub enabled: bool,
    /// How long a window stays open behind the watermark, in milliseconds.
    pub grace_ms: u64,
    /// One hour of a key in 2^this is taken to be a leak before anything is seen.
    pub prior: Option<u64>,
    /// The least odds (bits) of a notice.
    pub notice: Option<u64>,
    /// The least odds (bits) of an alert.
    pub alert: Option<u64>,
    /// The least odds (bits) of the level at which a policy may act.
    pub revoke: Option<u64>,
    /// The most bits that a family adds, by its name.
    pub caps: Vec<(&'static str, u64)>,
    /// What a signal's bits are multiplied with, by its name.
    pub weights: Vec<(&'static str, u64)>,
}

impl Default for Detection {
    fn default() -> Self {
        Self {
            enabled: true,
            grace_ms: 0,
            prior: None,
            notice: None,
            alert: None,
            revoke: None,
            caps: Vec::new(),
            weights: Vec::new(),
        }
    }
}
