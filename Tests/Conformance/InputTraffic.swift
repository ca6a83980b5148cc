// SPDX-License-Identifier: Apache-2.0
//
// vCPUs that store to a slow device what they read from a port of the VMM's, in one string instruction, under signals.

import Glibc
import GuestPrograms
import KVM
import LinuxSystem
import MMIOForwarding
import Synchronization
import SystemPackage

/// REP INS to a device that parks, over and over, while signals hit the vCPUs at random moments.
///
/// How much KVM reads ahead of its stores is its own affair: what must be is that each byte comes once, in order, and
/// is the one that the port gave.
struct InputTraffic {
    let width: GuestProgram.Width
    /// Elements in each run of the program.
    let count: Int
    /// How many bytes before a page's end the first one goes.
    let before: UInt64
    let vcpus: UInt32
    let signals: Int

    /// What came of it.
    struct Report {
        /// How many stores were parked, complete or not by the time that the VMM asked.
        var parked = 0
        /// How many stores there were of each length.
        var lengths: [Int: Int] = [:]
        /// The first thing that was not as it had to be.
        var mismatch: String?
    }

    private func target(_ vcpu: UInt32) -> UInt64 {
        ForwardedGuest.base + 0x2000 * UInt64(vcpu) + 0x1000 - before
    }

    /// A byte that the port gives: another one at another place of the run, in another run, and on another vCPU.
    private static func byte(_ position: Int, run: Int, vcpu: UInt32) -> UInt8 {
        let all = UInt64(position) &+ UInt64(run) << 20 &+ UInt64(vcpu) << 40
        return UInt8(truncatingIfNeeded: (all &* 0x9e37_79b9_7f4a_7c15) >> 56)
    }

    /// Goes on to the last signal, and to the end of the runs that are under way then.
    func run() throws -> Report {
        try ModuleUnderTest.load()
        let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: Int(vcpus))
        let control = try ControlDescriptor.parking(in: guest.machine, length: 0x2000 * UInt64(vcpus))
        let emulation = try control.makeEmulationDescriptor(nonBlocking: true)

        let targets = try (0..<vcpus).map { try SignalledVirtualCPU($0, in: guest) }
        let tasks = try targets.map { target in try BackgroundTask { try feed(target) } }
        let signaller = try BackgroundTask { SignalledVirtualCPU.signal(targets, signals, seed: 22) }
        var report = Report()
        var places = targets.map { _ in Place() }
        let haveEnded = { tasks.allSatisfy(\.hasEnded) }
        try emulation.serveSlowly(seed: 23, until: haveEnded) { request in
            report.lengths[request.length, default: 0] += 1
            report.mismatch = report.mismatch ?? difference(request, &places[Int(request.vcpu)])
            return 0
        }
        try signaller.join()
        for (task, place) in zip(tasks, places) where try task.join() != place.run || place.position != 0 {
            report.mismatch = report.mismatch ?? "stores are missing at \(place)"
        }
        report.parked = try DebugCounters.ofNewestDevice()["parked"] ?? 0
        return report
    }

    /// Runs a vCPU's program with the port's values; gives how often.
    private func feed(_ target: SignalledVirtualCPU) throws -> Int {
        let place = Mutex(Place())
        let arguments = GuestProgram.Arguments(target: self.target(target.index), count: count)
        try target.run(.stringInputOut(width)) { _ in
            arguments
        } respond: { run, exit, vcpu in
            guard case .portLoad(let access) = exit, access.port == GuestProgram.inputPort else {
                return try unexpectedExit(exit, &vcpu)
            }
            place.withLock { place in
                if place.run != run { place = Place(run: run) }
                for element in 0..<access.count {
                    let value = (0..<width.rawValue).reduce(UInt32(0)) {
                        $0 | UInt32(Self.byte(place.position + $1, run: run, vcpu: target.index)) << (8 * $1)
                    }
                    vcpu.setPortValue(value, at: element)
                    place.position += width.rawValue
                }
            }
        }
        return target.outcome.values.count
    }

    /// How far a vCPU is.
    private struct Place {
        var run = 0
        var position = 0
    }

    /// What is wrong with a request, if anything, where `place` is the first byte that has not come.
    private func difference(_ request: ForwardedRequest, _ place: inout Place) -> String? {
        let value = (0..<request.length).reduce(UInt64(0)) {
            $0 | UInt64(Self.byte(place.position + $1, run: place.run, vcpu: request.vcpu)) << (8 * $1)
        }
        let offset = target(request.vcpu) - ForwardedGuest.base + UInt64(place.position)
        guard request.kind == .store, request.offset == offset, request.data == value else {
            return "\(request) at \(place), where \(String(value, radix: 16)) is to come"
        }
        place.position += request.length
        if place.position >= count * width.rawValue { place = Place(run: place.run + 1) }
        return nil
    }
}
