// SPDX-License-Identifier: Apache-2.0
//
// Sockets' files that a process left behind when it was killed.

import Glibc
public import SystemPackage

extension UnixListener {
    /// Removes the file at `path` if it is a socket's to which nobody listens any more. C: `connect`, `unlink`.
    ///
    /// A process that does listen there notices nothing: the socket that asks is of another type, which the kernel
    /// refuses only after it has found a listener. Anything that is no socket's file stays.
    public static func removeStale(at path: FilePath) {
        var status = stat()
        let isSocket =
            unsafe path.withPlatformString { unsafe lstat($0, &status) } == 0 && status.st_mode & S_IFMT == S_IFSOCK
        guard isSocket, isRefused(path) else { return }
        _ = unsafe path.withPlatformString { unsafe unlink($0) }
    }

    /// Whether a datagram socket is told that nobody is there, rather than that its type is wrong.
    private static func isRefused(_ path: FilePath) -> Bool {
        let type = CInt(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue)
        guard let raw = try? systemCall(onInterrupt: .retry, { socket(AF_UNIX, type, 0) }) else { return false }
        let probe = OwnedDescriptor(adopting: raw)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = path.string.utf8
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return false }
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
        let size = socklen_t(MemoryLayout<sockaddr_un>.size)
        // SAFETY: a sockaddr_un begins as every sockaddr does, and lives through the call.
        let result = unsafe withUnsafePointer(to: &address) {
            unsafe connect(probe.rawValue, UnsafeRawPointer($0).assumingMemoryBound(to: sockaddr.self), size)
        }
        return result == -1 && errno == ECONNREFUSED
    }
}
