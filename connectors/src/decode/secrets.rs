//! The secrets of records, and texts without them.
//!
//! What stands where keys are looked for never leaves the decoder. In texts that are shown it becomes `{key}`. Ids leave
//! the decoder too: request ids in the view `late`, names of user agents in evidence. A hash of a text that holds a raw
//! key would let an attacker who knows the rest of the text try keys, however well key ids are made. So an identity is
//! hashed from its texts with each secret replaced by the id that it has as a key: ids differ as keys do, and nothing of
//! a raw key is in them.
//!
//! A secret is looked for in the forms in which it stands in the record: as it was written, with its escapes, and
//! decoded. In a text that is shown it is also found behind percent-encoding (see [`route::holds`]).
//!
//! Limits: in a shown text the first 64 secrets are looked for, further ones as long as that compares at most 16 MiB;
//! beyond that the text is `{key}` as a whole. Identities have no such limit: eight secrets are looked for one by one,
//! more of them together in one pass.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use keytide_dataflow::model::KeyId;
use memchr::memmem;

use super::is_large;
use super::route;

const REDACTED: &str = "{key}";
/// Secrets of a record that are always looked for in a shown text.
const SECRETS: usize = 64;
/// Bytes that may be compared beyond.
const COMPARED_BYTES: usize = 16 << 20;
/// Secrets that are looked for one by one in an identity's texts.
const ONE_BY_ONE: usize = 8;
/// Stands before a key id in an identity. No text of UTF-8 has this byte.
const MARK: u8 = 0xFF;

/// Secrets, each in one or more forms, in the order in which they were found. Reused, so that no record allocates.
#[derive(Default)]
pub(super) struct Secrets {
    /// Of each form its bytes, and those of the secret where they differ.
    bytes: Vec<u8>,
    forms: Vec<Form>,
}

/// The ranges of a form and of its secret in [`Secrets::bytes`].
struct Form {
    form: Range<usize>,
    secret: Range<usize>,
}

impl Secrets {
    pub(super) fn clear(&mut self) {
        if is_large(self.bytes.capacity()) {
            *self = Self::default();
        }
        self.bytes.clear();
        self.forms.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// Adds a form in which a secret stands in the record. One that is empty, or the same as the first, adds nothing.
    pub(super) fn add(&mut self, form: &[u8], secret: &[u8]) {
        if form.is_empty() || self.iter().next() == Some(form) {
            return;
        }
        let mut push = |bytes: &[u8]| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(bytes);
            start..self.bytes.len()
        };
        let place = push(form);
        let secret = if form == secret { place.clone() } else { push(secret) };
        self.forms.push(Form { form: place, secret });
    }

    /// Adds all of another record.
    pub(super) fn extend(&mut self, others: &Self) {
        let offset = self.bytes.len();
        let moved = |range: &Range<usize>| offset + range.start..offset + range.end;
        self.bytes.extend_from_slice(&others.bytes);
        self.forms.extend(
            others
                .forms
                .iter()
                .map(|Form { form, secret }| Form { form: moved(form), secret: moved(secret) }),
        );
    }

    /// Returns the bytes of each form.
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.forms.iter().map(|form| &self.bytes[form.form.clone()])
    }

    /// Returns a text to be shown, without the secrets.
    pub(super) fn redacted<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut redacted = Cow::Borrowed(text);
        for (index, secret) in self.iter().enumerate() {
            let compared = (index + 1).saturating_mul(text.len());
            if index >= SECRETS && compared > COMPARED_BYTES {
                return REDACTED.into();
            }
            if route::holds(&redacted, secret) {
                redacted = route::redacted(&redacted, secret).into();
            }
        }
        redacted
    }

    /// Appends a text to an identity, each secret in it replaced by its id.
    pub(super) fn write_replaced(&self, text: &[u8], id: impl Fn(&[u8]) -> KeyId, identity: &mut Vec<u8>) {
        let mut written = 0;
        for (index, Range { start, end }) in self.places(text) {
            let secret = &self.bytes[self.forms[index].secret.clone()];
            identity.extend_from_slice(&text[written..start]);
            identity.push(MARK);
            identity.extend_from_slice(&id(secret).0.to_le_bytes());
            written = end;
        }
        identity.extend_from_slice(&text[written..]);
    }

    /// Which forms stand where in a text, from the left, of those that begin at one place the longest.
    fn places(&self, text: &[u8]) -> Vec<(usize, Range<usize>)> {
        if self.forms.len() > ONE_BY_ONE {
            let search = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(self.iter());
            // Fails beyond 2^31 bytes of secrets, which no message has.
            let search = search.expect("secrets are shorter than a message");
            return search.find_iter(text).map(|found| (found.pattern().as_usize(), found.range())).collect();
        }
        let finders: Vec<_> = self.iter().map(memmem::Finder::new).collect();
        let mut places = Vec::new();
        let mut end = 0;
        // Of each form its first place behind the last one that was taken.
        let mut firsts: Vec<Option<usize>> = finders.iter().map(|finder| finder.find(text)).collect();
        loop {
            for (first, finder) in firsts.iter_mut().zip(&finders) {
                if first.is_some_and(|first| first < end) {
                    *first = finder.find(&text[end..]).map(|start| end + start);
                }
            }
            let found = firsts.iter().zip(&finders).enumerate().filter_map(|(index, (first, finder))| {
                let start = (*first)?;
                Some((start, Reverse(start + finder.needle().len()), index))
            });
            let Some((start, Reverse(behind), index)) = found.min() else { return places };
            end = behind;
            places.push((index, start..end));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secrets(all: &[&[u8]]) -> Secrets {
        let mut secrets = Secrets::default();
        all.iter().for_each(|secret| secrets.add(secret, secret));
        secrets
    }

    fn replaced(secrets: &Secrets, text: &[u8]) -> Vec<u8> {
        let mut identity = Vec::new();
        secrets.write_replaced(text, |secret| KeyId(secret.len() as u128), &mut identity);
        identity
    }

    #[test]
    fn each_secret_of_a_text_is_replaced_by_its_id() {
        let some = secrets(&[b"key", b"keyhole", b"", b"key"]);
        assert_eq!(some.iter().collect::<Vec<_>>(), [&b"key"[..], b"keyhole"]);
        let mark = |id: u8| [&[MARK, id][..], &[0; 15]].concat();
        let expected = [&b"a "[..], &mark(3), b" and a ", &mark(7), &mark(3)].concat();
        assert_eq!(replaced(&some, b"a key and a keyholekey"), expected);
        assert_eq!(replaced(&some, b"no secret"), b"no secret");
        assert_eq!(replaced(&Secrets::default(), b"a key"), b"a key");
        let mut escaped = Secrets::default();
        escaped.add(br"k\u0065y", b"key");
        assert_eq!(replaced(&escaped, br"a k\u0065y"), [&b"a "[..], &mark(3)].concat());
    }

    #[test]
    fn a_shown_text_is_redacted_segment_by_segment_or_as_a_whole_beyond_the_limit() {
        let some = secrets(&[b"kt_secret_1", b"kt_secret_2"]);
        assert_eq!(some.redacted("curl/8.0"), "curl/8.0");
        assert_eq!(some.redacted("app/kt_secret_1/x kt%5fsecret_2"), "app/{key}/{key}");
        let mut many = Secrets::default();
        for number in 0..100 {
            let secret = format!("another_secret_{number}");
            many.add(secret.as_bytes(), secret.as_bytes());
        }
        assert_eq!(many.redacted("curl/8.0"), "curl/8.0");
        assert_eq!(many.redacted(&"x".repeat(COMPARED_BYTES / 80)), REDACTED);
    }

    proptest! {
        #[test]
        fn many_secrets_are_found_as_few_are(
            text in "[ab]{0,40}",
            few in proptest::collection::vec("[ab]{1,4}", 1..=ONE_BY_ONE),
        ) {
            let few: Vec<&[u8]> = few.iter().map(String::as_bytes).collect();
            let one_by_one = secrets(&few);
            let mut together = secrets(&few);
            (0..=ONE_BY_ONE).for_each(|number| together.add(format!("never{number}").as_bytes(), b"never"));
            prop_assert_eq!(one_by_one.places(text.as_bytes()), together.places(text.as_bytes()));
        }

        #[test]
        fn what_secrets_are_replaced_by_tells_texts_apart(
            (one, other) in ("[ab]{0,12}", "[ab]{0,12}"),
            secret in "[ab]{1,3}",
        ) {
            let some = secrets(&[secret.as_bytes()]);
            let same = replaced(&some, one.as_bytes()) == replaced(&some, other.as_bytes());
            prop_assert_eq!(same, one == other);
        }
    }
}
