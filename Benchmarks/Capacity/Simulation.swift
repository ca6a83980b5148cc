// SPDX-License-Identifier: Apache-2.0
//
// A machine whose vCPUs access devices, event by event. Times are nanoseconds.

import Glibc
import SeededRandom

extension AccessCosts {
    /// Simulates a load.
    public func simulate(_ workload: Workload) -> Outcome {
        var simulation = Simulation(self, workload)
        return simulation.run()
    }
}

/// The state of a simulated machine.
struct Simulation {
    private enum Thread {
        case vcpu(Int)
        case process(Int)
    }

    private enum Event {
        /// The time of a vCPU's next access has come.
        case arrival(Int)
        /// A thread has a CPU.
        case start(Thread)
        /// A vCPU has executed exit and queueing.
        case queued(Int)
        /// A vCPU has woken a process.
        case woken(Int)
        /// A vCPU has gone through its sleep.
        case resumed(Int)
        /// A process has carried out what its call got.
        case served(Int)
    }

    private enum Kind { case store, load, fence }

    /// What a vCPU does when it has a CPU again.
    private enum Continuation { case goOn, store, finish }

    private struct VCPU {
        var began = 0.0
        var issued = 0
        var due = 0.0
        var device = 0
        var kind = Kind.store
        var isReplied = false
        var isBlocked = false
        var continuation = Continuation.finish
    }

    private struct Request {
        let vcpu: Int
        let isLoad: Bool
        let since: Double
    }

    private struct Device {
        var pending: [Request] = []
        var inService: [Request] = []
        var isAwake = false
        /// vCPUs whose store waits for space.
        var waiting: [Int] = []
        var busySince = 0.0
    }

    /// CPUs, and the threads that want one.
    private struct Pool {
        var idle: Int
        var queue: [Thread] = []
    }

    private let costs: AccessCosts
    private let load: Workload
    private var random: SeededGenerator
    private var events = EventQueue<Event>()
    private var now = 0.0
    private var vcpus: [VCPU]
    private var devices: [Device]
    /// The processes' first, then one for each vCPU.
    private var pools: [Pool]
    private var outcome = Outcome()

    init(_ costs: AccessCosts, _ load: Workload) {
        self.costs = costs
        self.load = load
        random = SeededGenerator(seed: load.seed)
        vcpus = Array(repeating: VCPU(), count: load.vcpus)
        devices = Array(repeating: Device(), count: load.devices)
        let processes = Pool(idle: load.sharesOneCPU ? 0 : load.emulationCPUs)
        pools = [processes] + Array(repeating: Pool(idle: 0), count: load.sharesOneCPU ? 0 : load.vcpus)
    }

    mutating func run() -> Outcome {
        for vcpu in vcpus.indices { next(vcpu) }
        while outcome.accesses < load.accesses || load.sharesOneCPU, let (time, event) = events.next() {
            now = time
            switch event {
            case .arrival(let vcpu): begin(vcpu)
            case .start(.vcpu(let vcpu)): start(vcpu)
            case .start(.process(let device)):
                devices[device].busySince = now
                serve(device, after: costs.run)
            case .queued(let vcpu): queued(vcpu)
            case .woken(let vcpu): woken(vcpu)
            case .resumed(let vcpu): proceed(vcpu)
            case .served(let device): served(device)
            }
        }
        return finished()
    }

    private func finished() -> Outcome {
        var outcome = outcome
        outcome.nanoseconds = now
        for device in devices where device.isAwake { outcome.emulationBusy += max(0, now - device.busySince) }
        outcome.loadTimes.sort()
        outcome.storeTimes.sort()
        return outcome
    }

    private mutating func execute(_ instructions: Double, then event: Event, hardware: Double = 0) {
        events.add(event, at: now + instructions / load.instructionsPerSecond * 1e9 + hardware)
    }

    // MARK: CPUs

    private func pool(of thread: Thread) -> Int {
        guard case .vcpu(let vcpu) = thread, !load.sharesOneCPU else { return 0 }
        return vcpu + 1
    }

    private mutating func makeRunnable(_ thread: Thread) {
        let pool = pool(of: thread)
        if pools[pool].idle > 0 {
            pools[pool].idle -= 1
            events.add(.start(thread), at: now + load.wakeupNanoseconds)
        } else {
            pools[pool].queue.append(thread)
        }
    }

    private mutating func release(_ pool: Int) {
        if pools[pool].queue.isEmpty {
            pools[pool].idle += 1
        } else {
            events.add(.start(pools[pool].queue.removeFirst()), at: now)
        }
    }

    // MARK: vCPUs

    /// Plans a vCPU's next access, if there is one.
    private mutating func next(_ vcpu: Int) {
        if let rate = load.rate {
            let mean = Double(load.vcpus) / rate * 1e9
            vcpus[vcpu].due -= log(1 - Double.random(in: 0..<1, using: &random)) * mean
            if vcpus[vcpu].due > now { return events.add(.arrival(vcpu), at: vcpus[vcpu].due) }
        } else if vcpus[vcpu].issued >= load.accesses / load.vcpus {
            return release(pool(of: .vcpu(vcpu)))
        } else {
            vcpus[vcpu].due = now
        }
        begin(vcpu)
    }

    private mutating func begin(_ vcpu: Int) {
        let kind = kind(after: vcpus[vcpu].issued)
        vcpus[vcpu].issued += 1
        vcpus[vcpu].kind = kind
        vcpus[vcpu].began = now
        vcpus[vcpu].device = .random(in: 0..<load.devices, using: &random)
        vcpus[vcpu].isReplied = false
        execute(
            costs.exit + costs.queue + (kind == .load ? costs.loadExtra : 0), then: .queued(vcpu),
            hardware: load.exitNanoseconds)
    }

    private mutating func kind(after issued: Int) -> Kind {
        if let burst = load.burst { return issued % (burst + 1) == burst ? .fence : .store }
        if load.alternates { return issued % 2 == 0 ? .store : .load }
        return Double.random(in: 0..<1, using: &random) < load.loads ? .load : .store
    }

    private mutating func queued(_ vcpu: Int) {
        let device = vcpus[vcpu].device
        let isStore = vcpus[vcpu].kind == .store
        if isStore, devices[device].pending.count >= costs.queueDepth {
            devices[device].waiting.append(vcpu)
            return block(vcpu, until: .store)
        }
        devices[device].pending.append(Request(vcpu: vcpu, isLoad: !isStore, since: vcpus[vcpu].due))
        outcome.deepest = max(outcome.deepest, devices[device].pending.count)
        guard !devices[device].isAwake else { return goOn(vcpu) }
        devices[device].isAwake = true
        // Busy from when it starts; until then it is not.
        devices[device].busySince = .infinity
        execute(costs.wake, then: .woken(vcpu))
    }

    private mutating func woken(_ vcpu: Int) {
        outcome.processWakeups += 1
        let process = Thread.process(vcpus[vcpu].device)
        if load.sharesOneCPU, load.wakeupPreemption {
            vcpus[vcpu].continuation = .goOn
            pools[0].queue.insert(.vcpu(vcpu), at: 0)
            events.add(.start(process), at: now)
        } else {
            makeRunnable(process)
            goOn(vcpu)
        }
    }

    private mutating func goOn(_ vcpu: Int) {
        if vcpus[vcpu].kind == .store || vcpus[vcpu].isReplied {
            finish(vcpu)
        } else {
            block(vcpu, until: .finish)
        }
    }

    private mutating func block(_ vcpu: Int, until continuation: Continuation) {
        vcpus[vcpu].isBlocked = true
        vcpus[vcpu].continuation = continuation
        release(pool(of: .vcpu(vcpu)))
    }

    private mutating func wake(_ vcpu: Int) {
        outcome.vcpuWakeups += 1
        vcpus[vcpu].isBlocked = false
        makeRunnable(.vcpu(vcpu))
    }

    private mutating func start(_ vcpu: Int) {
        // On one CPU the switches to the process and back are the process's own.
        if load.sharesOneCPU {
            proceed(vcpu)
        } else {
            execute(costs.sleep, then: .resumed(vcpu))
        }
    }

    private mutating func proceed(_ vcpu: Int) {
        switch vcpus[vcpu].continuation {
        case .goOn: goOn(vcpu)
        case .store: queued(vcpu)
        case .finish: finish(vcpu)
        }
    }

    private mutating func finish(_ vcpu: Int) {
        outcome.accessTime += now - vcpus[vcpu].began
        if vcpus[vcpu].kind == .load { outcome.loadTimes.append(now - vcpus[vcpu].due) }
        if vcpus[vcpu].kind != .fence { outcome.accesses += 1 }
        if outcome.accesses == load.accesses / 4 { outcome.settled = .init(nanoseconds: now, served: outcome.served) }
        next(vcpu)
    }

    // MARK: Processes

    /// Has a process take what is pending, as much as a call gets.
    private mutating func serve(_ device: Int, after instructions: Double) {
        let batch = devices[device].pending.prefix(AccessCosts.batch)
        devices[device].pending.removeFirst(batch.count)
        devices[device].inService = Array(batch)
        outcome.calls += 1
        var instructions = instructions + Double(batch.count) * (costs.serve + load.deviceInstructions)
        for request in batch where request.isLoad && vcpus[request.vcpu].isBlocked { instructions += costs.wake }
        let space = costs.queueDepth - devices[device].pending.count
        for vcpu in devices[device].waiting.prefix(space) {
            instructions += costs.wake
            wake(vcpu)
        }
        devices[device].waiting.removeFirst(min(space, devices[device].waiting.count))
        execute(instructions, then: .served(device))
    }

    private mutating func served(_ device: Int) {
        for request in devices[device].inService {
            outcome.served += 1
            if request.isLoad {
                vcpus[request.vcpu].isReplied = true
                if vcpus[request.vcpu].isBlocked { wake(request.vcpu) }
            } else {
                outcome.storeTimes.append(now - request.since)
            }
        }
        guard devices[device].pending.isEmpty else { return serve(device, after: costs.call) }
        devices[device].isAwake = false
        outcome.emulationBusy += now - devices[device].busySince
        release(0)
    }
}
