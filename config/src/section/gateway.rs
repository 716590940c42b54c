//! The section `[[gateway]]` of the gateway that refuses keys.
//!
//! This version has one gateway at most.

use super::policy::PolicyMode;
use super::prelude::*;

/// The name of a gateway that has none.
const GATEWAY: &str = "gateway";

keys! {
    /// The keys of a `[[gateway]]`.
    RawGateway {
        name: Name,
        kind: GatewayKindName,
        path: PathText,
        mode: PolicyMode,
    }
}

/// A gateway, which refuses the keys that are suspended or revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The name, which the views `audit` and `revocations` show.
    pub name: String,
    pub kind: GatewayKind,
    pub mode: PolicyMode,
}

/// How a gateway learns which keys it must refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayKind {
    /// A file with a line for each key.
    File { path: PathBuf },
    /// The topic `denied` of the Kafka sink.
    Topic,
}

choice! {
    /// The values of `kind` in a `[[gateway]]`.
    pub(crate) enum GatewayKindName {
        File = "file",
        Topic = "topic",
    }
}

impl Fingerprint for Gateway {
    fn add_to(&self, encoder: &mut Encoder) {
        let Self { name, kind, mode } = self;
        encoder.add(name);
        // Where the file is changes no row.
        encoder.text(match kind {
            GatewayKind::File { .. } => GatewayKindName::File.name(),
            GatewayKind::Topic => GatewayKindName::Topic.name(),
        });
        encoder.add(mode);
    }
}

/// What a gateway needs of other sections.
pub(crate) struct Needed {
    /// The mode of a gateway that has none.
    pub(crate) mode: PolicyMode,
    pub(crate) has_state: bool,
    pub(crate) has_topics: bool,
}

/// Validates the gateways, of which there is one at most.
pub(crate) fn gateway(
    entry: &Entry<Sections<RawGateway>>,
    needed: &Needed,
    check: &mut Check<'_>,
) -> Option<Gateway> {
    let spot = entry.given()?;
    let items = &spot.value.0.items;
    if items.len() > 1 {
        check.refuse(spot, format!("found {} gateways, allowed: one in this version", items.len()));
    }
    items.iter().map(|item| one(item, needed, check)).last()?
}

fn one(spot: &Spot<RawGateway>, needed: &Needed, check: &mut Check<'_>) -> Option<Gateway> {
    let RawGateway { name, kind, path, mode } = &spot.value;
    let name = name.value().map_or(GATEWAY, |name| &name.0).to_owned();
    let given = mode.given();
    let mode = given.map_or(needed.mode, |mode| mode.value);
    if mode == PolicyMode::Live && !needed.has_state {
        let message = "acts on keys, which needs [state]: a job that forgets which keys are suspended can't let them in again";
        match given {
            Some(given) => check.refuse(given, message),
            None => check.refuse(spot, message),
        }
    }
    let kind = match check.required(kind, spot, "kind")? {
        GatewayKindName::File => {
            let path = check.required(path, spot, "path")?;
            GatewayKind::File { path: check.base.join(&path.0) }
        }
        GatewayKindName::Topic => {
            check.foreign(path, "file");
            if !needed.has_topics {
                check.refuse(spot, "needs [sink.kafka], whose topic `denied` it follows");
            }
            GatewayKind::Topic
        }
    };
    Some(Gateway { name, kind, mode })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    const STATE: &str = "[state]\nurl = \"file:///var/lib/keytide\"\n";
    const FILE: &str = "[[gateway]]\nkind = \"file\"\npath = \"denied.txt\"\n";

    fn of(lines: &str) -> Option<Gateway> {
        job(&format!("{SMALL}{lines}")).gateway
    }

    #[test]
    fn a_gateway_only_shows_what_it_would_do_by_default() {
        assert_eq!(of(""), None);
        let expected = |mode| Gateway {
            name: "gateway".to_owned(),
            kind: GatewayKind::File { path: "/etc/keytide/denied.txt".into() },
            mode,
        };
        assert_eq!(of(FILE), Some(expected(PolicyMode::DryRun)));
        let live = format!("{FILE}mode = \"live\"\n{STATE}");
        assert_eq!(of(&live), Some(expected(PolicyMode::Live)));
        let of_policy = format!("{FILE}{STATE}[alerts.policy]\nmode = \"live\"");
        assert_eq!(of(&of_policy), Some(expected(PolicyMode::Live)));
        let own = format!("{FILE}mode = \"dry_run\"\n[alerts.policy]\nmode = \"live\"");
        assert_eq!(of(&own), Some(expected(PolicyMode::DryRun)));
    }

    #[test]
    fn problems_of_gateways_are_reported() {
        let live = "acts on keys, which needs [state]: a job that forgets which keys are suspended can't let them in again";
        for (lines, expected) in [
            (
                "[[gateway]]".to_owned(),
                "line 6: gateway[0].kind: missing, allowed: file, topic".to_owned(),
            ),
            (
                "[[gateway]]\nkind = \"file\"".to_owned(),
                "line 6: gateway[0].path: missing, allowed: a path, absolute or relative to the configuration file".to_owned(),
            ),
            (
                "[[gateway]]\nkind = \"topic\"\npath = \"x\"".to_owned(),
                "line 6: gateway[0]: needs [sink.kafka], whose topic `denied` it follows\n\
                 line 8: gateway[0].path: has no meaning here, allowed: only beside kind = \"file\""
                    .to_owned(),
            ),
            (format!("{FILE}mode = \"live\""), format!("line 9: gateway[0].mode: {live}")),
            (
                format!("{FILE}[alerts.policy]\nmode = \"live\""),
                format!("line 6: gateway[0]: {live}"),
            ),
            (FILE.repeat(2), "line 6: gateway: found 2 gateways, allowed: one in this version".to_owned()),
        ] {
            assert_eq!(problems(&format!("{SMALL}{lines}")), expected, "{lines}");
        }
    }
}
