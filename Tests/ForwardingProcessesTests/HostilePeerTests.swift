// SPDX-License-Identifier: Apache-2.0
//
// A VMM, or whoever listens where one should, that sends anything: the emulation process ends with an error, or serves.

import DeviceEmulation
import Fuzzing
import Glibc
import LinuxSystem
import Logging
import MMIOForwarding
import ReferenceDevices
import SeededRandom
import SystemPackage
import Testing

@testable import ForwardingProcesses

@Suite("Hostile peer", .timeLimit(.minutes(10)))
struct HostilePeerTests {
    init() {
        _ = signal(SIGPIPE, SIG_IGN)
    }

    @Test("Messages of any bytes and length in the place of requests", arguments: fuzzSeeds)
    func messages(seed: UInt64) throws {
        announce(seed, of: "messages")
        var random = SeededGenerator(seed: seed)
        for _ in 0..<200 {
            let pair = try UnixSocket.pair()
            for _ in 0..<Int.random(in: 0...20, using: &random) {
                try pair.first.send(Self.message(using: &random))
            }
            let socket = try pair.second.descriptor.duplicate()
            Self.drop(pair)
            let shared = SharedDevice(Scratch())
            // An errno is an answer too: of a message that is no request, or of a reply that nobody takes.
            _ = try? DeviceServer(
                shared, on: SocketTransport(socket, stores: Bool.random(using: &random) ? .acknowledged : .posted),
                batch: 1
            ).run()
        }
    }

    /// Mostly as long as a request.
    private static func message(using random: inout SeededGenerator) -> [UInt8] {
        let size = MemoryLayout<ForwardedRequest>.size
        let count =
            Int.random(in: 0..<4, using: &random) > 0 ? size : Int.random(in: 1...2 * size, using: &random)
        return (0..<count).map { _ in .random(in: 0...255, using: &random) }
    }

    private static func drop<Value: ~Copyable>(_ value: consuming Value) {}

    @Test("A listener that hands over anything at all", arguments: fuzzSeeds)
    func listener(seed: UInt64) throws {
        announce(seed, of: "handovers")
        var random = SeededGenerator(seed: seed)
        let path = FilePath("/tmp/mmiofd-hostile-\(getpid())-\(seed).sock")
        let logger = Logger(label: "hostile") { _ in SwiftLogNoOpLogHandler() }
        for _ in 0..<100 {
            let seed = random.next()
            let listener = try UnixListener(at: path)
            let peer = try NativeThread {
                var random = SeededGenerator(seed: seed)
                guard let socket = try? listener.accept() else { return }
                try? Self.handOver(socket, using: &random)
            }
            let session = EmulationSession(ReferenceDevice.all[0], threads: 1, batch: 8)
            // An error is an answer too.
            _ = try? session.run(at: path, waiting: .zero, logger: logger)
            peer.join()
        }
    }

    private static func handOver(_ socket: borrowing UnixSocket, using random: inout SeededGenerator) throws {
        let greeting = Array("mmiofd handover 1".utf8)
        let message = Int.random(in: 0..<4, using: &random) > 0 ? greeting : mutated(greeting, using: &random)
        let one = try HostileDescriptor.random(using: &random)
        let two = try HostileDescriptor.random(using: &random)
        let descriptors = [one.rawValue, two.rawValue].prefix(.random(in: 0...2, using: &random))
        if !message.isEmpty { try socket.send(message, descriptors: Array(descriptors)) }
    }
}
