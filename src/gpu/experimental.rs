//! The crate's one unsafe token. wgpu hands out features that it calls experimental only to whoever says that bugs in them may be hit from safe
//! code. Mixed precision needs one of them, cooperative matrices; nothing else asks for it, it is off unless the user gives `--precision mixed`, and
//! products are checked on the device before it is used (`bench::checked`).

/// The consent, where `wanted`.
#[expect(unsafe_code, reason = "the consent that wgpu asks for is an unsafe function; it touches no memory")]
pub(super) fn features(wanted: bool) -> wgpu::ExperimentalFeatures {
    if wanted {
        // SAFETY: the function only records the consent described above.
        unsafe { wgpu::ExperimentalFeatures::enabled() }
    } else {
        wgpu::ExperimentalFeatures::disabled()
    }
}
