//! What the kernels have to know about the processor.

use quearn_stage::low::Prim;
use std::sync::OnceLock;

/// Vector unit of the processor that the program will run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Bytes of a vector register.
    pub vector_bytes: u16,
    /// Number of vector registers.
    pub registers: u16,
    /// Bytes of the second-level cache of a core.
    pub l2_bytes: u64,
}

/// What is assumed where the processor does not tell.
const L2_BYTES: u64 = 1 << 20;

/// Bytes of the second-level cache of a core.
fn l2_bytes() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let text = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index2/size").unwrap_or_default();
        let kib = text.trim().strip_suffix('K').and_then(|n| n.parse::<u64>().ok());
        kib.map_or(L2_BYTES, |kib| kib << 10)
    })
}

impl Target {
    /// The processor that this code runs on.
    pub fn host() -> Target {
        #[cfg(target_arch = "x86_64")]
        {
            if std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512vl") {
                return Target { vector_bytes: 64, registers: 32, l2_bytes: l2_bytes() };
            }
            if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                return Target { vector_bytes: 32, registers: 16, l2_bytes: l2_bytes() };
            }
            Target { vector_bytes: 16, registers: 16, l2_bytes: l2_bytes() }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Target { vector_bytes: 16, registers: 32, l2_bytes: l2_bytes() }
    }

    /// Lanes of 4 bytes in a vector register.
    pub fn lanes(self) -> u16 {
        self.vector_bytes / 4
    }

    /// Lanes of a type in a vector register.
    pub fn lanes_of(self, prim: Prim) -> u16 {
        self.vector_bytes / prim.bytes() as u16
    }
}
