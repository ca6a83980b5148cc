// SPDX-License-Identifier: Apache-2.0
//
// Where the small VMM puts a reference device, and which part of it each vCPU may use.

import GuestPrograms
public import MMIOForwarding
public import ReferenceDevices

/// Where a reference device answers, and what in it is plain memory: what is stored there is what is loaded.
///
/// Guest programs run on that memory alone, each vCPU on a part of its own, so that a host can tell every value that
/// a guest loads.
public struct DevicePlacement: Sendable {
    /// The device.
    public let device: ReferenceDevice
    /// How many vCPUs share it.
    public let vcpus: Int
    /// The device's interrupt as a global system interrupt; nil if it has none here.
    public let interrupt: UInt32?
    /// Offsets of the plain memory.
    let memory: Range<UInt64>
    private let memoryBase: UInt64?
    private let portBase: UInt64?

    /// A vCPU gets this much memory at least, where there are several.
    private static let smallestPart = 64
    /// Where the ranges begin that put the end of a page into the middle of a vCPU's memory, and how far apart.
    private static let crossings: (base: UInt64, stride: UInt64) = (0xd010_0000, 0x4000)
    /// The first range that does so.
    private static let firstCrossingID: UInt32 = 2

    /// Places a device.
    ///
    /// - Parameters:
    ///   - device: one with plain memory.
    ///   - vcpus: 1 or more.
    /// - Throws: ``ProgramError`` if the device has no plain memory, or not enough for that many vCPUs.
    public init(_ device: ReferenceDevice, vcpus: Int) throws(ProgramError) {
        self.device = device
        self.vcpus = vcpus
        switch device.name {
        case "scratch":
            (memoryBase, portBase, interrupt) = (0xd000_0000, 0x2000, nil)
            memory = Scratch.memory
        case "uart16550a":
            (memoryBase, portBase, interrupt) = (nil, 0x3f8, 4)
            // SCR, its last register.
            memory = 7..<8
        default:
            throw .noMemory(device: device.name)
        }
        let most = max(1, memory.count / Self.smallestPart)
        guard (1...most).contains(vcpus) else { throw .tooManyVirtualCPUs(device: device.name, most: most) }
    }

    /// The ranges by their ids: 0 in memory, 1 among the ports, and from 2 on one in memory for each vCPU in which a
    /// page ends in the middle of the vCPU's memory.
    public var ranges: [(id: UInt32, range: GuestRange)] {
        var ranges: [(id: UInt32, range: GuestRange)] = []
        if let memoryBase { ranges.append((0, GuestRange(.memory, at: memoryBase, length: device.windowSize))) }
        if let portBase { ranges.append((1, GuestRange(.ports, at: portBase, length: device.windowSize))) }
        if memoryBase != nil {
            for vcpu in 0..<UInt32(vcpus) {
                ranges.append(
                    (
                        Self.firstCrossingID + vcpu,
                        GuestRange(.memory, at: crossingBase(vcpu), length: device.windowSize)
                    ))
            }
        }
        return ranges
    }

    /// Offsets of the memory that is a vCPU's own.
    func part(of vcpu: UInt32) -> Range<UInt64> {
        guard vcpus > 1 else { return memory }
        // Whole words: a vCPU's stores never share one with another's.
        let size = UInt64(memory.count / vcpus) & ~7
        let start = memory.lowerBound + UInt64(vcpu) * size
        return start..<start + size
    }

    /// Offset of the word in the middle of a vCPU's memory.
    private func middle(_ vcpu: UInt32) -> UInt64 {
        let part = part(of: vcpu)
        return part.lowerBound + UInt64(part.count / 2) & ~7
    }

    private func crossingBase(_ vcpu: UInt32) -> UInt64 {
        Self.crossings.base + Self.crossings.stride * UInt64(vcpu) + 0x2000 - middle(vcpu)
    }

    // MARK: Reading back

    /// Address of the registers that count the stores; nil for a device without.
    var registerBase: UInt64? { device.name == "scratch" ? memoryBase : nil }
    /// Address or port at which the device's offset 0 is, for ``reader``.
    var readerBase: UInt64 { memoryBase ?? portBase ?? 0 }
    /// The program that reads all of the memory, and how many bytes each of its accesses takes.
    var reader: (program: GuestProgram, width: Int) {
        memoryBase == nil ? (.portLoadLoop(.one), 1) : (.stringCopyIn(.eight), 8)
    }

    // MARK: Programs

    /// Where a program's accesses go on one vCPU.
    struct Target {
        /// Address or port at which the device's offset 0 is.
        let base: UInt64
        /// The program's arguments.
        let arguments: GuestProgram.Arguments
    }

    /// Chooses a program's target on a vCPU.
    ///
    /// - Throws: ``ProgramError`` if the device is not on the program's bus, or the accesses leave the vCPU's memory.
    func target(_ step: ProgramStep, seed: UInt64, vcpu: UInt32) throws(ProgramError) -> Target {
        let program = step.program
        guard program != .mailbox else { throw .notAlone(program: program.name) }
        let part = part(of: vcpu)
        let usesPorts = program.usesPorts
        let crosses = program == .straddling
        guard let base = usesPorts ? portBase : memoryBase.map({ crosses ? crossingBase(vcpu) : $0 }) else {
            throw .otherBus(program: program.name, device: device.name)
        }
        let arguments = GuestProgram.Arguments(
            target: base + (crosses ? middle(vcpu) : part.lowerBound), count: step.count,
            // Far apart: no vCPU's values look like another's.
            seed: seed &+ UInt64(vcpu) << 40, window: UInt64(max(8, part.count)))
        let target = Target(base: base, arguments: arguments)
        // String instructions alone go further with every access, and the part ends before this many.
        for access in program.accesses(arguments).prefix(memory.count + 1) {
            let offset = access.address &- base
            guard offset >= part.lowerBound, offset < part.upperBound,
                part.upperBound - offset >= UInt64(access.length)
            else { throw .leavesMemory(step, device: device.name, bytes: part.count) }
        }
        return target
    }
}

extension GuestProgram {
    /// Whether its accesses go to ports.
    fileprivate var usesPorts: Bool {
        accesses(Arguments(target: 0x1000, count: 1)).first { _ in true }?.bus == .port
    }
}
