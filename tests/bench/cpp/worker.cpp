#include "worker.hpp"

#include <exception>
#include <iostream>

#include "device.hpp"

namespace bench {

record worker::hello() const {
  record answer, cases;
  std::map<std::string, std::string> peers_of;
  for (const auto& [key, run] : runs_) {
    std::string& peers = peers_of[key.first];
    peers += (peers.empty() ? "" : " ") + key.second;
  }
  for (const auto& [name, peers] : peers_of) cases.set(name, peers);
  answer.set("worker", name_);
  answer.set("peers", versions_);
  answer.set("missing", missing_);
  answer.set("cases", cases);
  answer.set("compiler", std::string("g++ " __VERSION__));
  answer.set("device", device_name());
  answer.set("simulated", is_simulated() ? 1.0 : 0.0);
  return answer;
}

record worker::answer(const record& request) const {
  const std::string& what = request.text("do");
  if (what == "hello") return hello();
  if (what != "run") throw bad_request("\"" + what + "\" is nothing that can be done: hello, run or quit");
  const auto found = runs_.find({request.text("case"), request.text("peer")});
  if (found == runs_.end())
    throw bad_request("case " + request.text("case") + " is not there for peer " + request.text("peer"));
  const outcome result = found->second(request);
  record answer, figures;
  for (const auto& [name, value] : result.figures) figures.set(name, value);
  answer.set("value", result.value);
  answer.set("done", static_cast<double>(result.done));
  answer.set("figures", figures);
  return answer;
}

int worker::serve() {
  for (std::string line; std::getline(std::cin, line);) {
    record reply;
    try {
      const record request = record::parse(line);
      if (request.text("do") == "quit") return 0;
      reply = answer(request);
    } catch (const std::exception& error) {
      reply.set("error", std::string(error.what()));
    }
    std::cout << reply.json() << std::endl;  // the parent waits for it
  }
  return 0;
}

}  // namespace bench
