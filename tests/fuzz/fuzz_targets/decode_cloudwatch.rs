#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keytide_fuzz::decode::decode("cloudwatch", data));
