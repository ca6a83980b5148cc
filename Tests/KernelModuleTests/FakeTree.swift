// SPDX-License-Identifier: Apache-2.0
//
// A made-up machine: a folder that looks like /proc, /sys and the rest.

import Glibc
import KernelModule
import LinuxSystem
import SystemPackage

/// A folder of files for one test, removed at its end.
struct FakeTree: ~Copyable {
    let tree: SystemTree

    init() throws(Errno) {
        tree = SystemTree(root: try Self.makeRoot())
    }

    /// A tree with these files.
    init(_ files: KeyValuePairs<String, String>) throws(Errno) {
        let root = try Self.makeRoot()
        for (path, text) in files { try Self.write(Array(text.utf8), to: path, below: root) }
        tree = SystemTree(root: root)
    }

    deinit {
        Self.remove(tree.root)
    }

    /// Makes a file and the folders above it.
    func write(_ text: String, to path: String) throws(Errno) {
        try Self.write(Array(text.utf8), to: path, below: tree.root)
    }

    func write(_ bytes: [UInt8], to path: String) throws(Errno) {
        try Self.write(bytes, to: path, below: tree.root)
    }

    /// Makes an empty folder.
    func makeFolder(_ path: String) throws(Errno) {
        try Self.makeFolders(above: "\(path)/x", below: tree.root)
    }

    /// Makes a symbolic link, which may point to nothing.
    func link(_ path: String, to target: String) throws(Errno) {
        try Self.makeFolders(above: path, below: tree.root)
        try systemCall(onInterrupt: .retry) {
            unsafe tree.path(path).withPlatformString { unsafe symlink(target, $0) }
        }
    }

    private static func makeRoot() throws(Errno) -> FilePath {
        var name = Array("/tmp/mmiofd-tree-XXXXXX".utf8CString)
        guard unsafe mkdtemp(&name) != nil else { throw Errno(rawValue: errno) }
        return FilePath(String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self))
    }

    private static func write(_ bytes: [UInt8], to path: String, below root: FilePath) throws(Errno) {
        try makeFolders(above: path, below: root)
        let raw = try systemCall(onInterrupt: .retry) {
            unsafe root.appending(path).withPlatformString { unsafe creat($0, 0o644) }
        }
        let file = OwnedDescriptor(adopting: raw)
        let count = try systemCall(onInterrupt: .retry) {
            unsafe bytes.withUnsafeBytes { unsafe Glibc.write(file.rawValue, $0.baseAddress, $0.count) }
        }
        if count != bytes.count { throw .ioError }
    }

    private static func makeFolders(above path: String, below root: FilePath) throws(Errno) {
        var folder = root
        for component in path.split(separator: "/").dropLast() {
            folder.append(String(component))
            let result = unsafe folder.withPlatformString { unsafe mkdir($0, 0o755) }
            if result != 0, errno != EEXIST { throw Errno(rawValue: errno) }
        }
    }

    private static func remove(_ path: FilePath) {
        if unsafe path.withPlatformString({ unsafe unlink($0) }) == 0 { return }
        for name in (try? SystemTree(root: path).names(in: "")) ?? [] { remove(path.appending(name)) }
        _ = unsafe path.withPlatformString { unsafe rmdir($0) }
    }
}
