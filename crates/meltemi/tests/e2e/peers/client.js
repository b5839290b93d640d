// Calls the target over xDS with grpc-js and prints how often each server answered, as JSON.
const grpc = require('@grpc/grpc-js');
require('@grpc/grpc-js-xds').register();
const [target, count] = [process.argv[2], Number(process.argv[3])];
const client = new grpc.Client(target, grpc.credentials.createInsecure());
const same = (x) => x;
const seen = {};
function one(left) {
  if (left === 0) {
    console.log(JSON.stringify(seen));
    process.exit(0);
  }
  const options = { deadline: Date.now() + 20000, waitForReady: true };
  client.makeUnaryRequest('/echo.Echo/Echo', same, same, Buffer.from('hi'), new grpc.Metadata(), options, (error, reply) => {
    if (error) {
      console.error(error.message);
      process.exit(1);
    }
    seen[reply.toString()] = (seen[reply.toString()] || 0) + 1;
    one(left - 1);
  });
}
one(count);
