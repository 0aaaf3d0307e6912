//! The address guard's rule: which addresses an origin may not have.

use std::net::IpAddr;

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRefusal(pub &'static str);

/// Judges an address.
pub fn refuse_address(_address: IpAddr) -> Option<AddressRefusal> {
    None
}
