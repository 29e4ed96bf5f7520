// Writes murmur2.tsv: key, hash and partition of 12 as Kafka's own Java client computes them.
//   java -cp kafka-clients-4.3.1.jar Murmur2.java > murmur2.tsv
import java.nio.charset.StandardCharsets;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.utils.Utils;

public class Murmur2 {
    public static void main(String[] args) {
        String[] keys = {
            "", "a", "ab", "abc", "abcd", "abcde", "abcdef", "abcdefg", "abcdefgh",
            "shop.example.com", "www.example.com", "site-0001.example.com", "site-0002.example.com",
            "10.0.0.7", "2001:db8::1", "a/b?c=d&e", "with space", "ümläut.example", "日本語.example",
            "🙂", "x".repeat(63), "y".repeat(64), "z".repeat(65), "0123456789".repeat(51),
        };
        System.out.println("# key, murmur2 and partition of 12; by Murmur2.java with kafka-clients 4.3.1");
        for (String key : keys) {
            byte[] bytes = key.getBytes(StandardCharsets.UTF_8);
            System.out.println(key + "\t" + Utils.murmur2(bytes) + "\t" + BuiltInPartitioner.partitionForKey(bytes, 12));
        }
    }
}
