//! Why a store of objects refuses a request, for people.

use object_store::Error;

/// Characters of an answer that a message shows, at most.
const SHOWN: usize = 600;

/// Returns why the store will refuse the request again until a person does something; `None` for what may pass.
pub(super) fn refusal(error: &Error) -> Option<String> {
    let text = error.to_string();
    let code = element(&text, "Code").unwrap_or_default();
    let reason = match (error, code) {
        (_, "RequestTimeTooSkewed") => {
            "the clocks of this machine and of the store are too far apart: set this machine's right"
                .to_owned()
        }
        (_, "NoSuchBucket" | "ContainerNotFound") | (Error::NotFound { .. }, _) => {
            "there is no such bucket: create it, or correct the name".to_owned()
        }
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException") => {
            "the bucket is in another region: set AWS_REGION, or `region` in state.options".to_owned()
        }
        (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }, _)
        | (_, "ExpiredToken" | "InvalidToken" | "InvalidAccessKeyId") => {
            let code = if code.is_empty() { String::new() } else { format!(" ({code})") };
            format!(
                "the store refuses these credentials, or they lack the right to read, write, list or delete objects{code}"
            )
        }
        (Error::NotImplemented { .. } | Error::NotSupported { .. }, _) | (_, "NotImplemented") => {
            "the store can't write an object only if it isn't there (If-None-Match), which a state needs"
                .to_owned()
        }
        (Error::InvalidPath { .. }, _) => brief(error),
        _ if text.contains("without LOCATION") => {
            "the bucket is in another region: set AWS_REGION, or `region` in state.options".to_owned()
        }
        _ => return None,
    };
    Some(reason)
}

/// Returns the text of an error. Of an answer in XML it shows the code and the message.
pub(super) fn brief(error: &Error) -> String {
    let text = error.to_string();
    if text.contains("169.254.") || text.contains("metadata.google.internal") {
        return "there are no credentials in the environment or in state.options, and this machine has none of its own"
            .to_owned();
    }
    let text = match (element(&text, "Code"), element(&text, "Message")) {
        (Some(code), Some(message)) => format!("the store answers {code}: {message}"),
        _ => text,
    };
    let line: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Returns the text of the first XML element of a name.
fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inner.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: &str) -> Error {
        let source = format!(
            "Error performing PUT http://s3/b in 1ms - Server returned non-2xx status code: 400: <?xml?>\n\
             <Error><Code>{code}</Code><Message>It said no.</Message><StringToSign>{}</StringToSign></Error>",
            "x".repeat(4_096)
        );
        Error::Generic { store: "S3", source: source.into() }
    }

    #[test]
    fn what_a_person_has_to_do_is_told_from_what_passes() {
        for (code, expected) in [
            ("RequestTimeTooSkewed", Some("clocks")),
            ("NoSuchBucket", Some("no such bucket")),
            ("AuthorizationHeaderMalformed", Some("region")),
            ("ExpiredToken", Some("refuses these credentials, or they lack")),
            ("NotImplemented", Some("If-None-Match")),
            ("SlowDown", None),
            ("InternalError", None),
        ] {
            let reason = refusal(&answer(code));
            assert_eq!(reason.is_some(), expected.is_some(), "{code}");
            assert!(reason.is_none_or(|reason| reason.contains(expected.unwrap())), "{code}");
        }
        let denied = Error::PermissionDenied { path: "a".to_owned(), source: answer("AccessDenied").into() };
        assert!(refusal(&denied).unwrap().ends_with("(AccessDenied)"));
    }

    #[test]
    fn an_answer_is_shown_by_its_code_and_message_and_any_other_error_in_one_short_line() {
        assert_eq!(brief(&answer("SlowDown")), "the store answers SlowDown: It said no.");
        let long = Error::Generic { store: "S3", source: format!("a\nb{}", "ü".repeat(800)).into() };
        let shown = brief(&long);
        assert!(shown.starts_with("Generic S3 error: a b") && shown.chars().count() == SHOWN + 1, "{shown}");
    }
}
