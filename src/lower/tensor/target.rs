//! What the kernels have to know about the processor.

/// Vector unit of the processor that the program will run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Bytes of a vector register.
    pub vector_bytes: u16,
    /// Number of vector registers.
    pub registers: u16,
}

impl Target {
    /// The processor that this code runs on.
    pub fn host() -> Target {
        #[cfg(target_arch = "x86_64")]
        {
            if std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512vl") {
                return Target { vector_bytes: 64, registers: 32 };
            }
            if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                return Target { vector_bytes: 32, registers: 16 };
            }
            Target { vector_bytes: 16, registers: 16 }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Target { vector_bytes: 16, registers: 32 }
    }

    /// Lanes of 4 bytes in a vector register.
    pub fn lanes(self) -> u16 {
        self.vector_bytes / 4
    }
}
