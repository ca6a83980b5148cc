// SPDX-License-Identifier: Apache-2.0
//
// A directory that goes when its owner goes.

import Glibc
import LinuxSystem
import SystemPackage

/// A fresh directory, removed with all in it when this value goes.
struct TemporaryDirectory: ~Copyable {
    let path: FilePath

    /// Makes a directory in `parent`, which is made too if it is missing. C: `mkdtemp`.
    init(in parent: FilePath) throws(LabError) {
        try makeDirectories(parent)
        var template = Array(parent.appending("lab.XXXXXX").string.utf8CString)
        guard unsafe mkdtemp(&template) != nil else {
            throw .systemCall("mkdtemp in \(parent.string)", Errno(rawValue: errno))
        }
        path = FilePath(String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self))
    }

    deinit {
        // Errors leave something behind, which nobody can be told any more.
        removeTree(path)
    }

    /// Writes a file that all may run.
    ///
    /// - Returns: its path.
    func write(_ name: String, _ text: String) throws(LabError) -> FilePath {
        let file = path.appending(name)
        do {
            let descriptor = try FileDescriptor.open(
                file, .writeOnly, options: [.create, .exclusiveCreate, .closeOnExec],
                permissions: FilePermissions(rawValue: 0o755))
            try descriptor.closeAfter { _ = try descriptor.writeAll(text.utf8) }
        } catch {
            throw .systemCall("write \(file.string)", error as? Errno ?? .ioError)
        }
        return file
    }

    /// Makes a FIFO and opens its reading end, non-blocking. C: `mkfifo`.
    func makeFIFO(_ name: String) throws(LabError) -> OwnedDescriptor {
        let file = path.appending(name)
        do throws(Errno) {
            try systemCall(onInterrupt: .retry) { unsafe file.withPlatformString { unsafe mkfifo($0, 0o600) } }
            return OwnedDescriptor(
                adopting: try systemCall(onInterrupt: .retry) {
                    unsafe file.withPlatformString { unsafe Glibc.open($0, O_RDONLY | O_NONBLOCK | O_CLOEXEC) }
                })
        } catch {
            throw .systemCall("mkfifo \(file.string)", error)
        }
    }
}

/// Makes a directory and those above it that are missing. C: `mkdir`.
func makeDirectories(_ path: FilePath) throws(LabError) {
    guard resolve(path) == nil, !path.isEmpty else { return }
    try makeDirectories(path.removingLastComponent())
    let result = unsafe path.withPlatformString { unsafe mkdir($0, 0o755) }
    // Somebody else may have made it meanwhile.
    if result == -1, errno != EEXIST { throw .systemCall("mkdir \(path.string)", Errno(rawValue: errno)) }
}

/// Removes a file, or a directory with all in it; follows no link. C: `remove`, `readdir`.
private func removeTree(_ path: FilePath) {
    if unsafe path.withPlatformString({ unsafe remove($0) }) == 0 || errno != ENOTEMPTY { return }
    for name in names(in: path) { removeTree(path.appending(name)) }
    _ = unsafe path.withPlatformString { unsafe remove($0) }
}

/// The names in a directory, without `.` and `..`. C: `readdir`.
private func names(in path: FilePath) -> [String] {
    guard let directory = unsafe path.withPlatformString({ unsafe opendir($0) }) else { return [] }
    defer { _ = unsafe closedir(directory) }
    var names: [String] = []
    while let entry = unsafe readdir(directory) {
        let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
            // SAFETY: d_name ends with a zero byte.
            unsafe $0.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
        }
        if name != ".", name != ".." { names.append(name) }
    }
    return names
}
