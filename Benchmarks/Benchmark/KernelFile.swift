// SPDX-License-Identifier: Apache-2.0
//
// Small files of /proc, /sys and debugfs.

import Glibc
import LinuxSystem
import SystemPackage

/// A file in which the kernel tells or is told something.
struct KernelFile {
    let path: FilePath

    init(_ path: String) {
        self.path = FilePath(path)
    }

    /// All of it, without white space at the end; nil if it cannot be read.
    func text() -> String? {
        guard let bytes = try? OwnedDescriptor.open(path, .readOnly).readToEnd() else { return nil }
        var text = String(decoding: bytes, as: UTF8.self)
        while text.last?.isWhitespace == true { text.removeLast() }
        return text
    }

    /// Opens it as one does to make a file empty, which for some means something else.
    func empty() throws {
        try FileDescriptor.open(path, .writeOnly, options: .truncate).close()
    }

    /// Writes a text at once, as these files want it.
    func write(_ text: String) throws(Errno) {
        let file = try OwnedDescriptor.open(path, .writeOnly)
        var bytes = Array(text.utf8)
        _ = try systemCall(onInterrupt: .retry) {
            unsafe bytes.withUnsafeMutableBytes { unsafe Glibc.write(file.rawValue, $0.baseAddress, $0.count) }
        }
    }
}
