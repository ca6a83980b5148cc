// SPDX-License-Identifier: Apache-2.0
//
// Why a module could not be loaded, unloaded or read, in words that help.

public import SystemPackage

/// What was tried, what came back, what it means, and what to do about it.
public struct ModuleError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What was tried, as in "cannot …": `load kvm_user`.
    public let action: String
    /// What the kernel or the library answered.
    public let errno: Errno
    /// What that means here.
    public let cause: String
    /// What to do about it; empty if there is nothing to say.
    public let remedy: String

    /// Puts an error together.
    public init(action: String, errno: Errno, cause: String, remedy: String = "") {
        self.action = action
        self.errno = errno
        self.cause = cause
        self.remedy = remedy
    }

    /// All of it, in one line.
    public var description: String {
        let first = "cannot \(action): \(errno): \(cause)"
        return remedy.isEmpty ? first : "\(first); \(remedy)"
    }
}
