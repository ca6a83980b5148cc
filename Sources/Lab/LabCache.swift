// SPDX-License-Identifier: Apache-2.0
//
// The cache that scripts/fetch-* fill: kernels and virtme-ng.

import Glibc
public import SystemPackage

/// Where kernels and tools are kept, outside every checkout.
public struct LabCache: Hashable, Sendable {
    /// The cache's directory.
    public let directory: FilePath

    /// Takes a directory as the cache.
    public init(directory: FilePath) {
        self.directory = directory
    }

    /// Finds the cache as the scripts do: `$MMIOFD_CACHE`, or `mmiofd` in `$XDG_CACHE_HOME`, or in `~/.cache`.
    ///
    /// - Parameters:
    ///   - environment: looks up a variable; the process's own by default.
    ///   - current: what a relative path is relative to.
    public init(environment: (String) -> String? = variable, current: FilePath = .current) {
        func set(_ name: String) -> FilePath? {
            environment(name).flatMap { $0.isEmpty ? nil : FilePath($0) }
        }
        let home = set("HOME") ?? "/root"
        let path = set("MMIOFD_CACHE") ?? (set("XDG_CACHE_HOME") ?? home.appending(".cache")).appending("mmiofd")
        directory = current.pushing(path).lexicallyNormalized()
    }

    /// The version of virtme-ng that the lab is written for.
    static let virtmeVersion = "1.42"

    /// The program that boots a VM.
    var virtmeRun: FilePath {
        directory.appending("virtme-ng-\(Self.virtmeVersion)").appending("bin").appending("virtme-run")
    }

    /// Where that program should be and is not; nil if it is there.
    package var missingVirtme: FilePath? {
        resolve(virtmeRun) == nil ? virtmeRun : nil
    }

    /// Finds a kernel's image.
    ///
    /// - Throws: ``LabError/kernelMissing(_:cache:)`` or ``LabError/imageMissing(_:)``.
    func image(of kernel: LabKernel) throws(LabError) -> FilePath {
        switch kernel {
        case .series(let series):
            let kernel = directory.appending("kernels").appending(series)
            // The image under its own name, for virtme-ng finds the modules from where it lies.
            guard let image = resolve(kernel.appending("vmlinuz")) else {
                throw .kernelMissing(series, cache: directory)
            }
            return image
        case .image(let path):
            guard let image = resolve(path) else { throw .imageMissing(path) }
            return image
        }
    }
}

/// A variable of the process's environment. C: `getenv`.
public func variable(_ name: String) -> String? {
    unsafe getenv(name).map { unsafe String(cString: $0) }
}

/// The path without symbolic links, or nil if nothing is there. C: `realpath`.
func resolve(_ path: FilePath) -> FilePath? {
    guard let resolved = unsafe path.withPlatformString({ unsafe realpath($0, nil) }) else { return nil }
    defer { unsafe free(resolved) }
    return unsafe FilePath(platformString: resolved)
}

extension FilePath {
    /// The process's working directory. C: `getcwd`.
    public static var current: FilePath {
        guard let path = unsafe getcwd(nil, 0) else { return "/" }
        defer { unsafe free(path) }
        return unsafe FilePath(platformString: path)
    }
}
