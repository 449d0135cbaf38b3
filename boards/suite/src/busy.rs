//! A light that changes between bounded units of work, so that a person sees that a device is learning, and how fast.

use embedded_hal::digital::OutputPin;

/// Toggles a pin; off at the start, and off again when dropped by [`Busy::done`].
#[derive(Debug)]
pub struct Busy<'a, P> {
    pin: &'a mut P,
    on: bool,
}

impl<'a, P: OutputPin> Busy<'a, P> {
    /// Takes the light and switches it off.
    ///
    /// # Errors
    /// The pin's.
    pub fn new(pin: &'a mut P) -> Result<Self, P::Error> {
        pin.set_low()?;
        Ok(Self { pin, on: false })
    }

    /// One unit of work is done.
    ///
    /// # Errors
    /// The pin's.
    pub fn unit(&mut self) -> Result<(), P::Error> {
        self.on = !self.on;
        if self.on { self.pin.set_high() } else { self.pin.set_low() }
    }

    /// All work is done: the light goes out.
    ///
    /// # Errors
    /// The pin's.
    pub fn done(self) -> Result<(), P::Error> {
        self.pin.set_low()
    }
}

/// The light of a board that has none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLight;

impl embedded_hal::digital::ErrorType for NoLight {
    type Error = core::convert::Infallible;
}

impl OutputPin for NoLight {
    fn set_low(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use embedded_hal_mock::eh1::{
        MockError,
        digital::{Mock, State::High, State::Low, Transaction},
    };
    use std::io::ErrorKind;

    use super::Busy;

    #[test]
    fn changes_at_every_unit_and_ends_dark() {
        let mut pin = Mock::new(&[Low, High, Low, High, Low].map(Transaction::set));
        let mut busy = Busy::new(&mut pin).expect("the mock takes it");
        for _ in 0..3 {
            busy.unit().expect("the mock takes it");
        }
        busy.done().expect("the mock takes it");
        pin.done();
    }

    #[test]
    fn hands_on_the_error_of_the_pin() {
        let fault = MockError::Io(ErrorKind::NotConnected);
        let mut pin = Mock::new(&[Transaction::set(Low), Transaction::set(High).with_error(fault.clone())]);
        let mut busy = Busy::new(&mut pin).expect("the mock takes it");
        assert_eq!(busy.unit(), Err(fault));
        pin.done();
    }
}
