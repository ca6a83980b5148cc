// SPDX-License-Identifier: Apache-2.0
//
// What the emulation process says of who listens where a VMM should.

import Glibc
import LinuxSystem
import Logging
import ReferenceDevices
import SystemPackage
import Testing

@testable import ForwardingProcesses

@Suite("Handover socket", .timeLimit(.minutes(10)))
struct HandoverSocketTests {
    private let path = FilePath("/tmp/mmiofd-handover-\(getpid())-\(UInt32.random(in: 0 ... .max)).sock")

    /// Why a session with who listens at the path fails.
    private func failure() -> HandoverError? {
        let session = EmulationSession(ReferenceDevice.all[0], threads: 1, batch: 8)
        let logger = Logger(label: "handover") { _ in SwiftLogNoOpLogHandler() }
        return #expect(throws: HandoverError.self) {
            try session.run(at: path, waiting: .zero, logger: logger)
        }
    }

    @Test("A stream socket is no VMM's")
    func streamSocket() throws {
        let listener = OwnedDescriptor(
            adopting: try systemCall(onInterrupt: .retry) { socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0) })
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.string.utf8) }
        let size = socklen_t(MemoryLayout<sockaddr_un>.size)
        try systemCall(onInterrupt: .retry) {
            unsafe withUnsafePointer(to: &address) {
                unsafe bind(listener.rawValue, UnsafeRawPointer($0).assumingMemoryBound(to: sockaddr.self), size)
            }
        }
        defer { _ = unsafe path.withPlatformString { unsafe unlink($0) } }
        try systemCall(onInterrupt: .retry) { listen(listener.rawValue, 1) }

        let error = failure()
        #expect(error?.errno == .protocolWrongTypeForSocket)
        #expect(error?.description.contains("no VMM of mmiofd's") == true)
    }

    @Test("One that takes the connection and says nothing is not waited for without end")
    func silence() throws {
        let listener = try UnixListener(at: path)
        let error = failure()
        #expect(error?.action == .receive)
        #expect(error?.errno == .timedOut)
        #expect(error?.description.contains("hands over no device") == true)
        withExtendedLifetime(listener) {}
    }
}
