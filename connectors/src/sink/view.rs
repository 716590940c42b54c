//! The views, and what distinguishes their topics.

/// A view: a topic, and a series of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// `usage`.
    Usage,
    /// `usage_by_route`.
    UsageByRoute,
    /// `latency`.
    Latency,
    /// `geo`.
    Geo,
    /// `callers`.
    Callers,
    /// `subscription_usage`.
    SubscriptionUsage,
    /// `incidents`.
    Incidents,
    /// `incident_log`.
    IncidentLog,
    /// `revocations`.
    Revocations,
    /// `late`.
    Late,
    /// `dead_letters`.
    DeadLetters,
}

impl View {
    /// All of them; a view's place in it is `view as usize`.
    pub const ALL: [Self; 11] = [
        Self::Usage,
        Self::UsageByRoute,
        Self::Latency,
        Self::Geo,
        Self::Callers,
        Self::SubscriptionUsage,
        Self::Incidents,
        Self::IncidentLog,
        Self::Revocations,
        Self::Late,
        Self::DeadLetters,
    ];

    /// Its name in topics, files and schemas.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::UsageByRoute => "usage_by_route",
            Self::Latency => "latency",
            Self::Geo => "geo",
            Self::Callers => "callers",
            Self::SubscriptionUsage => "subscription_usage",
            Self::Incidents => "incidents",
            Self::IncidentLog => "incident_log",
            Self::Revocations => "revocations",
            Self::Late => "late",
            Self::DeadLetters => "dead_letters",
        }
    }

    /// Whether a record replaces the earlier ones of its key; otherwise each stands for itself.
    #[must_use]
    pub fn is_upsert(self) -> bool {
        !matches!(self, Self::IncidentLog | Self::Late | Self::DeadLetters)
    }

    /// Its topic.
    #[must_use]
    pub fn topic(self, prefix: &str) -> String {
        format!("{prefix}.{}.v1", self.name())
    }
}
