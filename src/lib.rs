//! Low-rank adapters (LoRA) that run and learn on microcontrollers.
#![no_std]
#![deny(unsafe_code)]
