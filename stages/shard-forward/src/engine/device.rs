//! Where tensors live, and how many threads compute.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fmt;
use std::str::FromStr;

use tch::{Cuda, Device};

/// Bytes of weights that a thread must have of a layer: at 25 GB/s it reads them in 40 µs, about what waking it costs.
const LAYER_BYTES_MIN: u64 = 1 << 20;

/// A device by the name that users give it: `cpu` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ComputeDevice {
    /// The CPU.
    #[default]
    Cpu,
    /// The CUDA device of this number.
    Cuda(u16),
}

/// A device that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Not the name of a device.
    #[error("`{0}` is not a device: `cpu` or `cuda:N`")]
    NotADevice(String),
    /// This libtorch was built without CUDA.
    #[error("`{device}` needs `libtorch_cuda.so` beside libtorch or on `LD_LIBRARY_PATH`: {reason}")]
    NoCudaLibrary {
        /// The device asked for.
        device: ComputeDevice,
        /// What the dynamic linker says.
        reason: String,
    },
    /// The machine has no such device.
    #[error("`{device}` is not there: {found} CUDA devices are visible")]
    Absent {
        /// The device asked for.
        device: ComputeDevice,
        /// How many there are.
        found: i64,
    },
}

impl ComputeDevice {
    /// Loads what the device needs and makes sure it is there.
    ///
    /// For CUDA this must come before anything else asks libtorch about CUDA, which remembers the first answer.
    pub fn open(self) -> Result<Device, DeviceError> {
        let ComputeDevice::Cuda(index) = self else { return Ok(Device::Cpu) };
        load_cuda().map_err(|reason| DeviceError::NoCudaLibrary { device: self, reason })?;
        let found = Cuda::device_count();
        if i64::from(index) >= found {
            return Err(DeviceError::Absent { device: self, found });
        }
        leave_out_cudnn_attention();
        Ok(Device::Cuda(usize::from(index)))
    }
}

/// Sets how many threads the calling thread's kernels use, and says how many: `asked`, or as many as pay for layers of
/// `layer_bytes`.
pub(super) fn set_threads(asked: Option<usize>, layer_bytes: u64) -> usize {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = asked.unwrap_or_else(|| worthwhile(layer_bytes, available));
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    threads
}

fn worthwhile(layer_bytes: u64, available: usize) -> usize {
    let threads = usize::try_from(layer_bytes / LAYER_BYTES_MIN).unwrap_or(usize::MAX);
    threads.clamp(1, available.max(1))
}

/// Loads libtorch's CUDA half, which registers itself. The binary is not linked to it, so that it runs without one too.
fn load_cuda() -> Result<(), String> {
    // SAFETY: the name is a C string that lives for the program's life. The library's initialisers only register
    // kernels with libtorch, which is loaded already, and it is never unloaded.
    let handle = unsafe { libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: after a failed `dlopen` on this thread `dlerror` gives null or a C string that is valid until the next
    // call of the family on this thread; it is copied at once.
    let reason = unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            String::new()
        } else {
            std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    };
    Err(reason)
}

// Of libtorch_cpu, under the names that its C++ has in the Itanium ABI; the linker finds them or fails.
unsafe extern "C" {
    /// `at::Context& at::globalContext()`
    #[link_name = "_ZN2at13globalContextEv"]
    fn global_context() -> *mut c_void;
    /// `void at::Context::setSDPUseCuDNN(bool)`
    #[link_name = "_ZN2at7Context14setSDPUseCuDNNEb"]
    fn set_sdp_use_cudnn(context: *mut c_void, use_it: bool);
}

/// Keeps attention from cuDNN, which libtorch prefers on Hopper: it makes a plan for every pair of lengths that it meets, 40 ms
/// each, and lengths are new at nearly every step here.
fn leave_out_cudnn_attention() {
    // SAFETY: the context is a static of libtorch; the setter stores one flag, which only attention reads.
    unsafe { set_sdp_use_cudnn(global_context(), false) };
}

impl fmt::Display for ComputeDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ComputeDevice::Cpu => f.write_str("cpu"),
            ComputeDevice::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for ComputeDevice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(ComputeDevice::Cpu),
            None if text == "cuda" => Ok(ComputeDevice::Cuda(0)),
            Some(("cuda", index)) if index.bytes().all(|byte| byte.is_ascii_digit()) => {
                index.parse().map(ComputeDevice::Cuda).map_err(|_| DeviceError::NotADevice(text.to_owned()))
            }
            _ => Err(DeviceError::NotADevice(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_and_written() {
        for (text, device) in [("cpu", ComputeDevice::Cpu), ("cuda:3", ComputeDevice::Cuda(3))] {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string(), text);
        }
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:+1", "cuda:99999"] {
            assert!(text.parse::<ComputeDevice>().is_err(), "{text}");
        }
    }

    #[test]
    fn small_layers_are_not_worth_a_second_thread() {
        assert_eq!([0, 900_000, 14 << 20, u64::MAX].map(|bytes| worthwhile(bytes, 8)), [1, 1, 8, 8]);
        assert_eq!([0, 1].map(|available| worthwhile(3 << 20, available)), [1, 1]);
    }

    #[test]
    fn an_absent_device_is_named() {
        let error = ComputeDevice::Cuda(u16::MAX).open().unwrap_err();
        assert!(error.to_string().contains("cuda:65535"), "{error}");
    }
}
