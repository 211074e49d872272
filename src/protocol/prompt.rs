//! The conversation of a login: the server's prompts and messages, and the client's answers (RFC
//! 4256 has the same for SSH; the styles are those of PAM).
//!
//! Pure; used by client and monitor. Both directions are sealed between them, after the host has
//! authenticated itself, so neither gate nor relay can read an answer.

use std::convert::Infallible;

use zeroize::Zeroizing;

use super::{Malformed, cbor, limits};

/// The kind of a text: the message styles of PAM (pam_conv(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A prompt with a hidden answer.
    Hidden = 1,
    /// A prompt with a visible answer.
    Shown = 2,
    /// Information.
    Info = 3,
    /// An error.
    Error = 4,
}

impl Style {
    const ALL: [Self; 4] = [Self::Hidden, Self::Shown, Self::Info, Self::Error];

    /// Returns whether an answer is expected.
    pub const fn is_prompt(self) -> bool {
        matches!(self, Self::Hidden | Self::Shown)
    }

    /// Returns its number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Returns the style with this number.
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.number() == number)
    }
}

/// What prompts for answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// PAM, for a login: any prompts.
    Login,
    /// The inner door, which registers each machine that gives a name (seed 002, build mode).
    Name,
    /// The inner door, which asks for an activation password (seed 002).
    Activation,
}

impl Asks {
    /// Returns its number on the wire; PAM has none.
    pub const fn number(self) -> Option<u8> {
        match self {
            Self::Login => None,
            Self::Name => Some(1),
            Self::Activation => Some(2),
        }
    }

    /// Returns the value with this number.
    pub fn of(number: u8) -> Option<Self> {
        [Self::Name, Self::Activation]
            .into_iter()
            .find(|a| a.number() == Some(number))
    }

    /// Returns whether it may send these texts: PAM with at least one prompt; the door with exactly
    /// one prompt, of the door's own style, after texts of information only.
    pub fn may_ask(self, texts: &[Text]) -> bool {
        let style = match self {
            Self::Login => return texts.iter().any(|t| t.style.is_prompt()),
            Self::Name => Style::Shown,
            Self::Activation => Style::Hidden,
        };
        texts.split_last().is_some_and(|(last, before)| {
            last.style == style && before.iter().all(|t| t.style == Style::Info)
        })
    }
}

/// One text: a prompt or a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Its style.
    pub style: Style,
    /// The words, at most [`limits::PROMPT`] bytes. Their control characters must not be passed to
    /// a terminal.
    pub words: String,
}

/// Cuts texts to the limits of one message: the first [`limits::PROMPTS`] texts, of each the first
/// [`limits::PROMPT`] bytes, and together at most [`limits::PROMPTS_BYTES`].
pub fn fit(texts: Vec<Text>) -> Vec<Text> {
    let mut room = limits::PROMPTS_BYTES;
    let mut cut = |mut text: Text| {
        let most = limits::PROMPT.min(room);
        if text.words.len() > most {
            let end = (0..=most).rev().find(|n| text.words.is_char_boundary(*n));
            text.words.truncate(end.unwrap_or(0));
        }
        room = room.saturating_sub(text.words.len());
        text
    };
    let mut fitting = texts;
    fitting.truncate(limits::PROMPTS);
    fitting.into_iter().map(&mut cut).collect()
}

pub(super) fn put(
    e: &mut cbor::Out,
    texts: &[Text],
) -> Result<(), minicbor::encode::Error<Infallible>> {
    e.array(cbor::len(texts.len()))?;
    for text in texts {
        e.array(2)?.u8(text.style.number())?.str(&text.words)?;
    }
    Ok(())
}

pub(super) fn get(d: &mut minicbor::Decoder<'_>) -> Result<Vec<Text>, Malformed> {
    let mut texts = Vec::new();
    for _ in 0..cbor::array(d, limits::PROMPTS)? {
        if cbor::array(d, 2)? != 2 {
            return Err(Malformed("a prompt that is not a style and a text"));
        }
        let style =
            Style::of(d.u8()?).ok_or(Malformed("a prompt of a style that does not exist"))?;
        let words = d.str()?;
        if words.len() > limits::PROMPT {
            return Err(Malformed("a prompt that is too long"));
        }
        texts.push(Text {
            style,
            words: words.to_owned(),
        });
    }
    Ok(texts)
}

/// Returns the length of the padding that, with its CBOR key and length, takes exactly this many
/// bytes. `None`: no padding does.
const fn filler_of(bytes: usize) -> Option<usize> {
    match bytes {
        2..=25 => bytes.checked_sub(2),
        27..=258 => bytes.checked_sub(3),
        260.. => bytes.checked_sub(4),
        0 | 1 | 26 | 259 => None,
    }
}

/// CBOR's head of a map of two pairs.
const TWO_PAIRS: u8 = 0xa2;

const fn zeros() -> &'static [u8] {
    &[0; limits::COMMAND_PIECE]
}

/// The answers to the prompts of one message, in their order. Wiped when dropped.
pub struct Answers(Vec<Zeroizing<Vec<u8>>>);

impl Answers {
    /// Checks these answers.
    ///
    /// # Errors
    /// There are too many, or one is longer than PAM takes, or one contains a NUL byte.
    pub fn new(answers: Vec<Zeroizing<Vec<u8>>>) -> Result<Self, Malformed> {
        if answers.len() > limits::PROMPTS {
            return Err(Malformed("more answers than there can be prompts"));
        }
        if answers
            .iter()
            .any(|a| a.len() > limits::REPLY || a.contains(&0))
        {
            return Err(Malformed("an answer too long, or with a NUL byte"));
        }
        Ok(Self(answers))
    }

    /// The answers.
    pub fn all(&self) -> &[Zeroizing<Vec<u8>>] {
        &self.0
    }

    /// Returns the bytes of the message that carries them.
    ///
    /// # Errors
    /// None that answers can cause.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, Malformed> {
        let most = self.0.iter().map(|a| a.len().saturating_add(3));
        // The buffer never moves while it is written, so no copy remains in memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(most.sum::<usize>().saturating_add(8)));
        let mut e = minicbor::Encoder::new(&mut *bytes);
        let mut write = || -> Result<(), minicbor::encode::Error<Infallible>> {
            e.map(1)?.u8(1)?.array(cbor::len(self.0.len()))?;
            for answer in &self.0 {
                e.bytes(answer)?;
            }
            Ok(())
        };
        write().map_err(|_| Malformed("answers that cannot be encoded"))?;
        Ok(bytes)
    }

    /// Returns the same, padded so that its length does not reveal a password's length, as far as a
    /// record holds it.
    ///
    /// # Errors
    /// As of [`Self::encode`].
    pub fn encode_padded(&self) -> Result<Zeroizing<Vec<u8>>, Malformed> {
        let plain = self.encode()?;
        let mut room = plain.len().next_multiple_of(limits::ANSWERS_PADDING);
        let filler = loop {
            if room == plain.len() || room > limits::COMMAND_PIECE {
                return Ok(plain);
            }
            if let Some(filler) = filler_of(room.saturating_sub(plain.len())) {
                break filler;
            }
            room = room.saturating_add(limits::ANSWERS_PADDING);
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        bytes.extend_from_slice(&plain);
        // The map has one more pair now.
        if let Some(map) = bytes.first_mut() {
            *map = TWO_PAIRS;
        }
        let mut e = minicbor::Encoder::new(&mut *bytes);
        let mut write = || -> Result<(), minicbor::encode::Error<Infallible>> {
            e.u8(2)?.bytes(zeros().get(..filler).unwrap_or_default())?;
            Ok(())
        };
        write().map_err(|_| Malformed("answers that cannot be encoded"))?;
        Ok(bytes)
    }

    /// Parses the message, which must have exactly `expected` answers.
    ///
    /// # Errors
    /// Anything but that number of canonical answers.
    pub fn decode(bytes: &[u8], expected: usize) -> Result<Self, Malformed> {
        let mut answers = None;
        cbor::each_pair(bytes, |key, d| {
            if key != 1 {
                return Ok(false);
            }
            let mut all = Vec::new();
            for _ in 0..cbor::array(d, limits::PROMPTS)? {
                all.push(Zeroizing::new(d.bytes()?.to_vec()));
            }
            answers = Some(all);
            Ok(true)
        })?;
        let answers = Self::new(answers.ok_or(Malformed("a message without answers"))?)?;
        if answers.0.len() != expected {
            return Err(Malformed("more or fewer answers than there were prompts"));
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::answer::Answer;

    fn text(style: Style, words: &str) -> Text {
        Text {
            style,
            words: words.into(),
        }
    }

    #[test]
    fn prompts_and_answers_round_trip() {
        let prompts = vec![
            text(Style::Error, "expired"),
            text(Style::Hidden, "New password: "),
            text(Style::Shown, "Code: "),
        ];
        let by = Asks::Login;
        let message = Answer::Prompts { by, texts: prompts };
        assert_eq!(Answer::decode(&message.encode().unwrap()), Ok(message));
        let accept = Answer::Accept {
            proof: None,
            texts: vec![text(Style::Info, "welcome")],
        };
        assert_eq!(Answer::decode(&accept.encode().unwrap()), Ok(accept));

        let answers = [b"secret".to_vec(), Vec::new()].map(Zeroizing::new);
        let bytes = Answers::new(answers.to_vec()).unwrap().encode().unwrap();
        let back = Answers::decode(&bytes, 2).unwrap();
        assert_eq!(back.all(), &answers);
        assert!(Answers::decode(&bytes, 1).is_err());
        assert!(Answers::decode(&bytes, 3).is_err());
    }

    #[test]
    fn padded_answers_are_as_long_whatever_the_password() {
        let padded = |lengths: &[usize]| {
            let all = lengths.iter().map(|n| Zeroizing::new(vec![b'x'; *n]));
            let answers = Answers::new(all.collect()).unwrap();
            let bytes = answers.encode_padded().unwrap();
            assert_eq!(
                Answers::decode(&bytes, lengths.len()).unwrap().all(),
                answers.all()
            );
            bytes.len()
        };
        for n in 0..=247 {
            assert_eq!(padded(&[n]), limits::ANSWERS_PADDING, "{n}");
        }
        // The longest name, and lengths that no padding completes.
        assert_eq!(padded(&[251]), limits::ANSWERS_PADDING);
        for n in [248, 480, 505, limits::REPLY] {
            assert_eq!(padded(&[n]), 2 * limits::ANSWERS_PADDING, "{n}");
        }
        // A message that a record cannot hold with padding has none.
        assert!(padded(&[500; 8]) <= limits::COMMAND_PIECE);
    }

    #[test]
    fn what_is_no_conversation_is_refused() {
        // Prompts without a prompt; acceptance with one.
        let told = vec![text(Style::Info, "x")];
        let by = Asks::Login;
        let none = Answer::Prompts { by, texts: told };
        assert!(Answer::decode(&none.encode().unwrap()).is_err());
        let asks = Answer::Accept {
            proof: None,
            texts: vec![text(Style::Hidden, "x")],
        };
        assert!(Answer::decode(&asks.encode().unwrap()).is_err());
        for bad in [vec![0; limits::REPLY + 1], vec![b'a', 0]] {
            assert!(Answers::new(vec![Zeroizing::new(bad)]).is_err());
        }
        let many = vec![Zeroizing::new(Vec::new()); limits::PROMPTS + 1];
        assert!(Answers::new(many).is_err());
    }

    #[test]
    fn registration_prompt_has_one_question_of_its_own_style() {
        let info = || text(Style::Info, "You have not been authorized");
        let (shown, hidden) = (text(Style::Shown, "Name: "), text(Style::Hidden, "pw: "));
        let error = text(Style::Error, "x");
        let asks = |by, texts: &[&Text]| {
            let texts = texts.iter().map(|t| (*t).clone()).collect();
            let message = Answer::Prompts { by, texts };
            let read = Answer::decode(&message.encode().unwrap());
            assert!(read.is_err() || read == Ok(message));
            read.is_ok()
        };
        for (by, own, other) in [
            (Asks::Name, &shown, &hidden),
            (Asks::Activation, &hidden, &shown),
        ] {
            assert!(asks(by, &[own]));
            assert!(asks(by, &[&info(), &info(), own]));
            let bad: [&[&Text]; 7] = [
                &[],
                &[other],
                &[own, own],
                &[other, own],
                &[own, &info()],
                &[&error, own],
                &[&info()],
            ];
            for texts in bad {
                assert!(!asks(by, texts), "{by:?} {texts:?}");
            }
        }
    }

    #[test]
    fn unknown_prompt_source_is_refused() {
        for number in 0..=30 {
            let bytes = cbor::write(|e| {
                e.map(3)?.u8(1)?.u8(2)?.u8(3)?.array(1)?;
                e.array(2)?.u8(2)?.str("Name: ")?;
                e.u8(4)?.u8(number)?;
                Ok(())
            });
            let is_name = Answer::decode(&bytes.unwrap()).is_ok();
            assert_eq!(is_name, number == 1, "{number}");
        }
    }

    #[test]
    fn texts_are_cut_to_what_a_message_carries() {
        let long = text(Style::Info, &"ü".repeat(limits::PROMPT));
        let cut = fit(vec![long; limits::PROMPTS + 8]);
        assert_eq!(cut.len(), limits::PROMPTS);
        let bytes: usize = cut.iter().map(|t| t.words.len()).sum();
        assert!(bytes <= limits::PROMPTS_BYTES);
        let message = Answer::Accept {
            proof: Some([0; 32]),
            texts: cut.clone(),
        };
        let room = limits::GREETING_BODY - 5 - 48 - limits::TAG;
        assert!(message.encode().unwrap().len() <= room);
        let by = Asks::Name;
        let message = Answer::Prompts { by, texts: cut };
        assert!(message.encode().unwrap().len() <= room);
    }
}
