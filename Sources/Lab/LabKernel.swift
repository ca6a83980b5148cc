// SPDX-License-Identifier: Apache-2.0
//
// Which kernel the lab boots.

public import SystemPackage

/// A kernel to boot: one of Debian's, from the cache, or an image of one's own.
public enum LabKernel: Hashable, Sendable {
    /// A Debian series that `scripts/fetch-kernel` knows: `6.1` or `6.12`.
    case series(String)
    /// A bzImage or vmlinuz. Modules are looked for in `../lib/modules` beside its directory.
    case image(FilePath)

    /// The series that `scripts/fetch-kernel` knows.
    public static let debianSeries = ["6.1", "6.12"]

    /// Takes a name as one would type it: a path if it has a slash in it, otherwise a series.
    public init(_ name: String) {
        self = name.contains("/") ? .image(FilePath(name)) : .series(name)
    }

    /// A short name, for messages and file names.
    public var name: String {
        switch self {
        case .series(let series): series
        case .image(let path): path.lastComponent?.string ?? "kernel"
        }
    }
}
