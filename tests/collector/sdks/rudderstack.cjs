// Sends COUNT track calls and one of each other call with @rudderstack/rudder-sdk-node. Environment: URL, KEY, COUNT.
const Analytics = require("@rudderstack/rudder-sdk-node");

const count = Number(process.env.COUNT);
const analytics = new Analytics(process.env.KEY, { dataPlaneUrl: process.env.URL, flushInterval: 50, logLevel: "none" });
let waiting = count + 5;
const done = (error) => {
  if (error) {
    console.error(error);
    process.exitCode = 1;
  }
  waiting -= 1;
  if (!waiting) process.exit();
};

analytics.identify({ userId: "u-1", traits: { plan: "pro", name: "李雷" } }, done);
analytics.page({ userId: "u-1", category: "Shop", name: "Home", properties: { url: "https://shop.example/" } }, done);
analytics.screen({ userId: "u-1", name: "Start" }, done);
analytics.group({ userId: "u-1", groupId: "acme", traits: { size: 3 } }, done);
analytics.alias({ userId: "u-1", previousId: "a-1" }, done);
for (let number = 0; number < count; number += 1) {
  analytics.track({ anonymousId: "a-1", event: "Item Seen", properties: { number } }, done);
}
