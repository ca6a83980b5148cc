// SPDX-License-Identifier: Apache-2.0
//
// What an access costs on different paths to an emulation process, in one run, for comparison alone.

import DeviceEmulation
import Glibc
import GuestPrograms
import KVM
import LinuxSystem
import MMIOForwarding
import ReferenceDevices
import Synchronization
import SystemPackage

/// The same guest loop on different paths to the same device, by turns.
///
/// Times depend on the machine and on what else it does; only ratios of one run mean anything.
public struct CostComparison: Sendable {
    /// How an access reaches the device.
    public enum Path: String, CaseIterable, Sendable {
        /// To the VMM alone, which drops it.
        case exitStore = "exit, store"
        /// To the VMM alone, which answers it.
        case exitLoad = "exit, load"
        /// To the VMM, which sends a message to the emulation process and waits for its reply.
        case socketStore = "exit and socket, store"
        /// The same, but the VMM does not wait.
        case socketPostedStore = "exit and socket, posted store"
        /// To the VMM, which sends a message to the emulation process and waits for the value.
        case socketLoad = "exit and socket, load"
        /// Through the emulation descriptor.
        case descriptorStore = "descriptor, posted store"
        /// Through the emulation descriptor.
        case descriptorLoad = "descriptor, load"
        /// From shadow memory, without the emulation process.
        case shadowLoad = "shadow memory, load"

        /// Whether the guest loads.
        var isLoad: Bool { [.exitLoad, .socketLoad, .descriptorLoad, .shadowLoad].contains(self) }
        /// Whether KVM answers the access or hands it on, without an exit.
        var isForwarded: Bool { [.descriptorStore, .descriptorLoad, .shadowLoad].contains(self) }
        /// What the guest accesses: a load of TICKET is always a request.
        var register: Scratch.Register { self == .descriptorLoad ? .ticket : .data32 }
        /// The path that it is compared with.
        var reference: Path { isLoad ? .exitLoad : .exitStore }
    }

    /// What a path cost.
    public struct Cost: Sendable {
        /// The path.
        public let path: Path
        /// Time for one access in each round, fastest first; in nanoseconds.
        public let nanoseconds: [Double]
        /// ``median`` divided by that of the bare exit of the same kind.
        public let ratio: Double

        /// The middle one of the rounds.
        public var median: Double { nanoseconds[nanoseconds.count / 2] }
    }

    /// Accesses of a round on a path.
    public let count: Int
    /// Rounds of all paths.
    public let rounds: Int

    /// Plans a comparison; each of them 1 or more.
    public init(count: Int, rounds: Int) {
        self.count = max(1, count)
        self.rounds = max(1, rounds)
    }

    private static let forwarded: UInt64 = 0xd000_0000
    private static let exiting: UInt64 = 0xe000_0000

    /// Runs the comparison.
    ///
    /// - Parameter startPeer: starts a process that runs ``CostPeer/run()`` with that socket as its standard input.
    /// - Returns: a cost for each path.
    /// - Throws: `KVMError`, `ForwardingError`; errno of the sockets; `UnexpectedExit`.
    public func run(startingPeers startPeer: (CostPeer, CInt) throws -> Void) throws -> [Cost] {
        let machine = try KVMSystem().makeVirtualMachine()
        let control = try ControlDescriptor(in: machine)
        try control.setRange(0, to: GuestRange(.memory, at: Self.forwarded, length: Scratch.windowSize))
        let guest = try GuestMachine(in: machine, vcpus: 1, capacity: count)

        func socket(_ peer: CostPeer) throws -> UnixSocket {
            let pair = try UnixSocket.pair()
            let here = pair.first
            let there = pair.second
            try startPeer(peer, there.descriptor.rawValue)
            return here
        }
        let handover = try socket(.descriptor)
        try Handover.send(try control.makeEmulationDescriptor(), over: handover)
        let messages = try socket(.messages)
        let posted = try socket(.postedMessages)

        var vcpu = try guest.makeVirtualCPU(id: 0)
        var times: [Path: [Double]] = [:]
        for round in 0...rounds {
            for path in Path.allCases {
                let number = path == .socketPostedStore ? posted.descriptor.rawValue : messages.descriptor.rawValue
                let time = try measure(path, on: &vcpu, guest, socket: number)
                // The first round brings everything into caches.
                if round > 0 { times[path, default: []].append(time) }
            }
        }
        return costs(times)
    }

    private func costs(_ times: [Path: [Double]]) -> [Cost] {
        func sorted(_ path: Path) -> [Double] { (times[path] ?? []).sorted() }
        return Path.allCases.map { path in
            let (own, reference) = (sorted(path), sorted(path.reference))
            let ratio = own[own.count / 2] / reference[reference.count / 2]
            return Cost(path: path, nanoseconds: own, ratio: ratio)
        }
    }

    /// Times the guest's loop on one path.
    ///
    /// - Returns: nanoseconds for one access.
    private func measure(
        _ path: Path, on vcpu: inout VirtualCPU, _ guest: GuestMachine, socket: CInt
    ) throws -> Double {
        let base = path.isForwarded ? Self.forwarded : Self.exiting
        let program = path.isLoad ? GuestProgram.loadLoop(.four) : .storeLoop(.four)
        let target = base + path.register.rawValue
        try guest.load(program, .init(target: target, count: count), on: &vcpu)
        let start = ContinuousClock.now
        try vcpu.runProgram(handler(path, socket: socket))
        let elapsed = ContinuousClock.now - start
        // What was posted is carried out before the next path begins.
        switch path {
        case .descriptorStore:
            try guest.load(.loadLoop(.four), .init(target: target, count: 1), on: &vcpu)
            try vcpu.runProgram()
        case .socketPostedStore:
            _ = try exchange(ForwardedRequest(sequence: 1, .load, offset: 0, length: 4), over: socket)
        default:
            break
        }
        return elapsed / .nanoseconds(count)
    }

    /// What the VMM does about an exit.
    private func handler(_ path: Path, socket: CInt) -> GuestExitHandler {
        switch path {
        case .descriptorStore, .descriptorLoad, .shadowLoad:
            unexpectedExit
        case .exitStore, .exitLoad:
            { exit, vcpu in
                switch exit {
                case .mmioStore: break
                case .mmioLoad: vcpu.setLoadedValue(0)
                default: try unexpectedExit(exit, &vcpu)
                }
            }
        case .socketStore, .socketLoad, .socketPostedStore:
            { exit, vcpu in
                switch exit {
                case .mmioStore(let access, let value):
                    let request = ForwardedRequest(
                        sequence: 1, .store, offset: access.address &- Self.exiting, length: access.length, data: value)
                    if path == .socketPostedStore {
                        try sendMessage(request, over: socket)
                    } else {
                        _ = try exchange(request, over: socket)
                    }
                case .mmioLoad(let access):
                    let request = ForwardedRequest(
                        sequence: 1, .load, offset: access.address &- Self.exiting, length: access.length)
                    vcpu.setLoadedValue(try exchange(request, over: socket))
                default:
                    try unexpectedExit(exit, &vcpu)
                }
            }
        }
    }

    /// Sends a request and waits for its reply.
    ///
    /// - Returns: the reply's value.
    private func exchange(_ request: ForwardedRequest, over socket: CInt) throws(Errno) -> UInt64 {
        try sendMessage(request, over: socket)
        guard let reply = try receiveMessage(request.reply(), over: socket) else { throw .connectionReset }
        return reply.data
    }
}
