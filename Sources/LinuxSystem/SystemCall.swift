// SPDX-License-Identifier: Apache-2.0
//
// The one way into the kernel: runs a call, takes errno before anything else can change it, and says what happens
// when a signal comes.

import CLinuxSystem
import Glibc
package import SystemPackage

/// What a system call does when a signal interrupts it (EINTR).
package enum OnInterrupt {
    /// Call again: the caller does not want to know.
    case retry
    /// Throw `Errno.interrupted`: the caller asked for calls that a signal ends.
    case fail
}

/// Runs `call` and returns its result, or throws errno if that is -1.
@discardableResult
package func systemCall<Result: FixedWidthInteger & SignedInteger>(
    onInterrupt: OnInterrupt, _ call: () -> Result
) throws(Errno) -> Result {
    while true {
        let result = call()
        if result != -1 { return result }
        let error = Errno(rawValue: errno)
        if error != .interrupted || onInterrupt == .fail { throw error }
    }
}

extension OwnedDescriptor {
    /// Runs an ioctl that takes a pointer to `argument`, which the kernel may read and write. C: `ioctl`.
    @discardableResult
    package func ioctl<Argument: BitwiseCopyable>(
        _ command: UInt, _ argument: inout Argument, onInterrupt: OnInterrupt = .retry
    ) throws(Errno) -> CInt {
        // SAFETY: the pointer is valid for the call, and `command` encodes the size of `Argument`.
        try systemCall(onInterrupt: onInterrupt) {
            unsafe withUnsafeMutablePointer(to: &argument) { unsafe clinux_ioctl_pointer(rawValue, command, $0) }
        }
    }

    /// Runs an ioctl that takes an integer, or nothing. C: `ioctl`.
    @discardableResult
    package func ioctl(
        _ command: UInt, _ argument: UInt = 0, onInterrupt: OnInterrupt = .retry
    ) throws(Errno) -> CInt {
        try systemCall(onInterrupt: onInterrupt) { clinux_ioctl_integer(rawValue, command, argument) }
    }
}
