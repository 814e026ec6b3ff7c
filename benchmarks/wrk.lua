-- A script for wrk. It prints the measurements as JSON. With an argument N it requests the cases of N doctors at random.

function init(args)
   local doctors = tonumber(args[1])
   if doctors then
      math.randomseed(os.time())
      request = function()
         -- The UUIDs of benchmarks.database.doctor_id.
         local id = string.format("00000000-0000-4000-8000-%012x", math.random(0, doctors - 1))
         return wrk.format(nil, "/cases/all_cases?user_id=" .. id)
      end
   end
end

function done(summary, latency, _)
   local errors = summary.errors
   print(string.format(
      '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "max": %d, "errors": %d}',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
      errors.connect + errors.read + errors.write + errors.timeout + errors.status
   ))
end
