// SPDX-License-Identifier: Apache-2.0
//
// A kernel's name for itself, `uname -r`.

import SystemPackage

/// A kernel release such as `6.1.0-56-amd64`, compared by its first two numbers.
public struct KernelRelease: Sendable, Hashable, Comparable, CustomStringConvertible {
    /// The release as `uname -r` prints it; the name of its folder in /lib/modules.
    public let description: String
    /// The first number, 6 in 6.1.
    public let major: Int
    /// The second number, 1 in 6.1.
    public let minor: Int

    /// Takes a release apart.
    ///
    /// - Parameter text: what `uname -r` prints; nil results if it does not begin with two numbers and a dot.
    public init?(_ text: String) {
        let numbers = text.split(separator: ".", maxSplits: 2, omittingEmptySubsequences: false)
        guard numbers.count >= 2, let major = Int(numbers[0]), let minor = Int(numbers[1].prefix(while: \.isNumber))
        else { return nil }
        description = text
        self.major = major
        self.minor = minor
    }

    /// The release of the kernel that `tree` tells of, from /proc/sys/kernel/osrelease.
    public init?(of tree: SystemTree) {
        guard let text = try? tree.text("proc/sys/kernel/osrelease") else { return nil }
        self.init(text)
    }

    /// The series, `6.1`.
    public var series: String { "\(major).\(minor)" }

    /// The folder in `.build/kmod` with the module built for it: ``series``, or the name of one of the lab's kernels with
    /// checkers, `kasan` for `6.1.192-kasan`.
    public var buildName: String {
        let suffix = description.split(separator: "-").last.map(String.init) ?? ""
        return ["kasan", "kcsan"].contains(suffix) ? suffix : series
    }

    /// Whether one series is older than the other; patch levels do not count.
    public static func < (left: KernelRelease, right: KernelRelease) -> Bool {
        (left.major, left.minor) < (right.major, right.minor)
    }
}
